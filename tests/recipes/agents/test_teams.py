"""M-GRPO and VideoChat-M1 through their recipes: credit by role, and what each policy of a team learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import find_game
from stratagem.lab.delegation import ASSISTANT
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.rewards import GradedOutcome
from stratagem.sampling import Rollouts, Windows


def delegation() -> LabTask:
    return LabTask(find_game("delegation"))


@pytest.fixture
def sampled() -> Experience:
    """Groups of eight rollouts of a random policy in the lab's game of two roles."""
    world = LabWorld(delegation(), 1000)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=48, group_size=8), 0).x
    assert x is not None
    return x


def gradient(recipe: Recipe, x: Experience, logp: torch.Tensor) -> torch.Tensor:
    logp = logp.detach().clone().requires_grad_()
    return torch.autograd.grad(objective_of(recipe)(PolicyOutput(logp), recipe.prepare(x)).loss, logp)[0]


def objective_of(recipe: Recipe) -> Objective:
    return recipe.objective


# ---- the game -------------------------------------------------------------------------------------------------------


def test_batches_of_the_lab_say_who_acted_and_in_which_conversation(sampled):
    assert set(sampled.turn_role.tolist()) == {0, 1}
    assistant = sampled.turn_role == ASSISTANT
    assert bool((sampled.turn_context[~assistant] == 0).all()) and set(sampled.turn_context[assistant].tolist()) == {
        1,
        2,
    }
    assert sampled.named_reward("calls").long().tolist() == sampled.trajectory_of_turn.sum(assistant.long()).tolist()
    world = LabWorld(delegation(), 1000)
    world.serve(0)
    window = world.collect(Windows(prompts_per_step=4, tokens=3), 0).x
    assert window.turn_role is not None and window.turn_context is not None


def test_in_the_lab_roles_share_no_parameter():
    """A policy of the lab is a table over histories, and one role acts in each."""
    tree = Tree.enumerate(find_game("delegation"))
    role = tree.leaves.turn_of_token.spread(tree.leaves.turn_role)
    by_node = [set(role[tree.node == node].tolist()) for node in range(tree.nodes)]
    assert all(len(found) == 1 for found in by_node) and {*map(tuple, by_node)} == {(0,), (1,)}


# ---- M-GRPO ---------------------------------------------------------------------------------------------------------


def test_a_graded_outcome_is_1_and_a_tenth_and_0():
    x = Experience.from_lengths(
        [1] * 4, [1] * 4, [4], success=[True, False, True, False],
        reward=torch.tensor([[5.0, 1.0], [7.0, 1.0], [5.0, 0.0], [7.0, 0.5]]),
        reward_names=("reward", "format"), reward_weights=(1.0, 1.0),
    )  # fmt: skip
    assert GradedOutcome()(x).returns.tolist() == pytest.approx([1.0, 0.1, 0.0, 0.0])
    plain = Experience.from_lengths([1] * 2, [1] * 2, [2], success=[True, False], turn_reward=[3.0, 4.0])
    assert GradedOutcome(2.0, 1.0, -1.0)(plain).returns.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("game", ["prompts", "corridor"])
def test_with_one_agent_it_is_grpo_with_its_clip(game):
    world = LabWorld(LabTask(find_game(game)), 1000)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=4, group_size=8), 0).x
    grpo = recipes.grpo().with_values({"objective.gate.high": 0.28, "objective.regularizer": None})
    logp = x.behavior_logp + 0.3 * torch.randn(x.tokens, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gradient(recipes.mgrpo(), x, logp), gradient(grpo, x, logp))


def test_the_planner_learns_what_grpo_teaches_it_when_only_its_turns_train(sampled):
    """A frozen sub-agent, which is of no account to the planner: neither its calls nor how many they are."""
    planner = sampled.turn_of_token.spread(sampled.turn_role == 0)
    logp = sampled.behavior_logp + 0.3 * torch.randn(sampled.tokens, generator=torch.Generator().manual_seed(0))
    grpo = recipes.grpo().with_values({"objective.gate.high": 0.28, "objective.regularizer": None})
    alone = gradient(grpo, sampled.replace(mask=planner), logp)
    torch.testing.assert_close(gradient(recipes.mgrpo(), sampled, logp)[planner], alone[planner])


@pytest.mark.parametrize("rewards", ["task", "released", "weighted"])
def test_each_reward_teaches_both_roles(sampled, rewards):
    recipe = recipes.mgrpo(rewards, slots=2)
    found = gradient(recipe, sampled, sampled.behavior_logp)
    role = sampled.turn_of_token.spread(sampled.turn_role)
    assert all(float(found[role == number].abs().sum()) > 0 for number in (0, 1))
    prepared = recipe.prepare(sampled)
    allowed = {"task": {0.0, 1.0}, "released": {0.0, 0.1, 1.0}, "weighted": {0.0, 0.1, 1.0}}[rewards]
    assert {round(value, 4) for value in prepared.returns.tolist()} <= allowed


def test_pieces_of_a_batch_have_the_gradient_of_the_whole(sampled):
    recipe = recipes.mgrpo(slots=2)
    prepared = recipe.prepare(sampled)
    whole = gradient(recipe, sampled, sampled.behavior_logp)
    for piece in torch.arange(prepared.trajectories).tensor_split(5):
        x = prepared.microbatch(piece)
        logp = x.behavior_logp.clone().requires_grad_()
        rows = prepared.turn_of_token.pick(prepared.trajectory_of_turn.pick(piece)[0])[0]
        found = torch.autograd.grad(recipe.objective(PolicyOutput(logp), x).loss, logp)[0]
        torch.testing.assert_close(found, whole[rows])


def test_an_unknown_kind_of_rewards_is_one_clear_line():
    with pytest.raises(InputError, match="unknown rewards of mgrpo 'realeased'; did you mean 'released'"):
        recipes.mgrpo("realeased")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mgrpo", "videochat_m1"])
def test_roles_of_the_lab_learn_together(name, tmp_path):
    from stratagem.study.experiments import learn

    recipe: Any = {"mgrpo": recipes.mgrpo, "videochat_m1": recipes.videochat_m1}[name]()
    run = learn(recipe, delegation(), 1000, 30, learning_rate=0.1)
    assert run.last.expected_return > run.policies[0].expected_return + 0.1


# ---- VideoChat-M1 ---------------------------------------------------------------------------------------------------


def test_with_one_agent_and_nobody_to_talk_to_it_is_grpo():
    world = LabWorld(LabTask(find_game("prompts")), 1000)
    world.serve(0)
    x = world.collect(Rollouts(prompts_per_step=4, group_size=8), 0).x
    x = x.replace(ref_logp=x.behavior_logp - 0.1)
    logp = x.behavior_logp + 0.3 * torch.randn(x.tokens, generator=torch.Generator().manual_seed(0))
    grpo = recipes.grpo()
    grpo = grpo.replace(objective=grpo.objective.replace(regularizer=recipes.videochat_m1().objective.regularizer))
    torch.testing.assert_close(gradient(recipes.videochat_m1(), x, logp), gradient(grpo, x, logp))
