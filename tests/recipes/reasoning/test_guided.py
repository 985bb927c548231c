"""LoPE and POPE through their recipes: what they change, that they reduce to their base, train and are judged."""

from __future__ import annotations

import pytest
import torch

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, Tree, diagnose, find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes import grpo, lope
from stratagem.sampling import Resampled
from stratagem.study.experiments import learn


def sections(recipe: Recipe, base: Recipe) -> set[str]:
    return {change.path.split(".")[0] for change in recipe.diff(base)} - {"name", "base"}


HARD = LabTask(find_game("prompts"))


# ---- lope -----------------------------------------------------------------------------------------------------------


def resampled_batch(mixture: float, seed: int = 1000) -> tuple[Experience, LabWorld]:
    world = LabWorld(HARD, seed)
    world.serve(0)
    got = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=4, mixture=mixture), 0)
    assert got.metrics["groups/failed"] >= got.metrics["groups/rescued"] > 0
    assert got.x is not None
    return got.x, world


def test_lope_samples_failed_groups_again_and_shapes_what_it_finds():
    assert sections(lope(), grpo()) == {"sampler", "advantage", "objective"}
    assert catalogue.card("lope").family == "reasoning"
    assert lope().to_yaml() == Recipe.from_yaml(lope().to_yaml()).to_yaml()


def test_in_the_lab_the_perturbed_policy_is_a_mixture_with_the_uniform_one():
    x, world = resampled_batch(0.3)
    policy = Exact(world.tree, world.policy.table())
    clean = policy.logp[x.inputs.node, x.action]
    mixed = (0.7 * clean.exp() + 0.3 / world.task.game.vocabulary).log()
    again = x.trajectory_of_token.spread(x.resampled)
    torch.testing.assert_close(x.behavior_logp[again].double(), mixed[again], atol=1e-5, rtol=0)
    torch.testing.assert_close(x.behavior_logp[~again].double(), clean[~again], atol=1e-5, rtol=0)


def test_without_mixture_and_shaping_it_is_sampling_again_at_a_ratio_of_one():
    x, world = resampled_batch(0.0)
    logp = Exact(world.tree, world.policy.table()).logp[x.inputs.node, x.action]
    torch.testing.assert_close(x.behavior_logp.double(), logp, atol=1e-5, rtol=0)


def test_the_ratio_of_what_was_resampled_is_to_the_perturbed_policy_even_where_the_old_one_is_known():
    x, world = resampled_batch(0.3)
    recipe = lope()
    logp = Exact(world.tree, world.policy.table()).logp[x.inputs.node, x.action]
    x = recipe.prepare(x.replace(old_logp=logp.float()))
    ratio = recipe.objective.ratio(PolicyOutput(logp.float()), x)
    again = x.trajectory_of_token.spread(x.resampled)
    torch.testing.assert_close(ratio[~again], torch.ones_like(ratio[~again]), atol=1e-4, rtol=0)
    assert float((ratio[again] - 1).abs().max()) > 0.1


def test_where_no_group_fails_lope_is_grpo_with_another_deviation():
    never = LabTask(find_game("prompts"))
    tree = Tree.enumerate(never.game)
    sure = Exact(tree, 8 * torch.nn.functional.one_hot(_best(tree), never.game.vocabulary).double())
    ours = learn(lope(), never, 1000, 2, start=sure)
    theirs = learn(grpo().with_values({"advantage.correction": 0}), never, 1000, 2, start=sure)
    assert all(row["groups/failed"] == 0 for row in ours.metrics)
    torch.testing.assert_close(ours.last.logits, theirs.last.logits, atol=1e-4, rtol=1e-4)


def _best(tree: Tree) -> torch.Tensor:
    from stratagem.lab.exact import optimal_values

    return optimal_values(tree).argmax(-1)


def test_what_is_sampled_again_counts_in_the_budget():
    world = LabWorld(HARD, 1000)
    world.serve(0)
    got = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=4), 0)
    again = int(got.metrics["resampled/trajectories"])
    assert again == 4 * got.metrics["groups/failed"] > 0
    plain = world.collect(Resampled(prompts_per_step=64, group_size=2, resamples=1), 0)
    assert got.tokens - plain.tokens > 0


def test_lope_trains_and_is_diagnosed():
    run = learn(lope(), HARD, 1000, 3)
    assert run.last.expected_return != run.policies[0].expected_return
    assert diagnose(lope(), "prompts", groups=512, seed=1000).direction is not None


def test_worlds_without_prompts_refuse_to_perturb_them():
    with pytest.raises(InputError, match="reads no prompt that could be perturbed"):
        lope().sampler.check_from_start("a control policy")
