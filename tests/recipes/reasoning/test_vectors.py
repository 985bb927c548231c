"""Rewards that are vectors, through the recipes: what each changes, and that it runs where it is meant to."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue, recipes
from stratagem.claims.reasoning.vectors import WORKED_SUMS, earned, treasures
from stratagem.experience import Experience
from stratagem.lab import Tree, find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.rewards import BestCandidate, RewardWeights
from stratagem.schedules import FrontGain, GradientInfluence
from stratagem.study.experiments import learn
from stratagem.tasks import RoutesTask, SetTask, state_key
from stratagem.tasks.sets import SetEnvironment

# ---- vpo ------------------------------------------------------------------------------------------------------------


def test_vpo_is_grpo_but_for_what_a_trajectory_is_worth():
    ours = recipes.vpo()
    assert ours.replace(name="grpo", base=None, rewards=()) == recipes.grpo().replace(base=None)
    assert ours.rewards == (BestCandidate(8, 1.0),)
    assert recipes.vpo(4, 0.5, (1.0, 2.0), 16).rewards == (BestCandidate(4, 0.5, (1.0, 2.0)),)
    assert Recipe.from_yaml(recipes.vpo(weights=(0.5, 0.5)).to_yaml()) == recipes.vpo(weights=(0.5, 0.5))


def test_equal_trajectories_teach_nothing_and_all_tokens_of_one_share_its_advantage():
    leaves = Tree.enumerate(treasures(2)).leaves
    same = leaves.select(torch.full((8,), 17)).replace(seed=torch.arange(8))
    recipe = recipes.vpo()
    x = recipe.prepare(same)
    assert x.advantage.abs().max() == 0
    mixed = leaves.select(torch.tensor([0, 900, 1700, 2500, 100, 300, 500, 700])).replace(seed=torch.arange(8))
    credit = recipe.prepare(mixed).advantage.reshape(8, -1)
    assert bool((credit == credit[:, :1]).all())


def test_vpo_teaches_the_candidates_of_a_set_to_differ():
    """Two routes that find different treasures are worth 3/4 of what is left beyond one: the set learns both."""
    run = learn(recipes.vpo(group_size=16), LabTask(treasures(2)), 1000, 60)
    both = [policy.expected(_different(policy.tree.leaves)) for policy in (run.policies[0], run.last)]
    assert both[1] > 0.25 > 5 * both[0]


def _different(x: Experience) -> torch.Tensor:
    """Sets of two routes that find two treasures."""
    assert x.reward is not None
    return (x.reward[:, 1:].reshape(-1, 2, 3).amax(1).sum(1) == 2).double()


class _Scripted(SetEnvironment):
    """Takes one of three sets, whichever the text of the policy happens to point at."""

    def step(self, action: str):
        sets = ("<candidate>{}</candidate>" * 2, "<candidate>{}</candidate>", "nothing")
        [solution] = self._task.of.solution("train", 0)
        return super().step(sets[state_key(action) % 3].format(solution, "north"))


class _ScriptedSets(SetTask):
    def environment(self, split, index):
        return _Scripted(self, split, 0)


def test_a_language_policy_learns_from_sets_of_routes(make_trainer, small, make_world):
    recipe = small("vpo")
    run = make_trainer(recipe, world=make_world(_ScriptedSets(RoutesTask(), 2)))
    row = run.step()
    assert 0 < row["reward/written"] < 1 and row["reward/goal@1"] == row["reward/brief@1"] > 0
    assert row["batch/skipped"] == 0 and row["grad_norm"] > 0


# ---- dynamic_reward_weighting, gradient_reward_weighting ------------------------------------------------------------


@pytest.mark.parametrize("host", ["rloo", "grpo"])
def test_both_methods_are_their_host_but_for_weights_and_schedule(host):
    base = {"rloo": recipes.rloo(), "grpo": recipes.grpo(kl_coefficient=0.001)}[host]
    for build, schedule in (
        (recipes.dynamic_reward_weighting, FrontGain),
        (recipes.gradient_reward_weighting, GradientInfluence),
    ):
        ours = build((0.6, 0.4), host=host)
        assert (ours.advantage, ours.objective, ours.base) == (base.advantage, base.objective, host)
        assert [type(part) for part in ours.schedules] == [schedule]
        assert ours.rewards == (RewardWeights((0.6, 0.4)),)
        assert catalogue.card(build.__name__).arxiv == "2509.11452"
        assert Recipe.from_yaml(ours.to_yaml()) == ours


def test_single_rewards_are_credited_as_the_whole_is_without_the_kl():
    [schedule] = recipes.gradient_reward_weighting().schedules
    host = recipes.grpo(kl_coefficient=0.001)
    assert schedule.advantage == host.advantage
    assert schedule.objective == host.objective.replace(regularizer=None) != host.objective


@pytest.mark.parametrize("name", ["dynamic_reward_weighting", "gradient_reward_weighting"])
def test_both_methods_learn_a_game_of_several_rewards(name):
    recipe = catalogue.card(name).recipe(weights=(0.8, 0.2))
    run = learn(recipe, LabTask(find_game("styles")), 1000, 40)
    first, last = (float(policy.logp[0, 0].exp()) for policy in (run.policies[0], run.last))
    assert last > 3 * first > 0


def test_no_answer_of_the_worked_sums_gets_all_three_rewards():
    x = Tree.enumerate(WORKED_SUMS).leaves
    assert float(x.reward.sum(1).max()) == 2
    assert {tuple(row) for row in x.reward.tolist() if sum(row) == 2} == {(1, 1, 0), (1, 0, 1), (0, 1, 1)}
    run = learn(recipes.gradient_reward_weighting(), LabTask(WORKED_SUMS), 1000, 1)
    assert all(0 < value < 1 for value in earned(run.last))
