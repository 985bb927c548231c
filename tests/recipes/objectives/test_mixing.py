"""Recipes that learn from demonstrations and from rollouts in one stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.advantages import Constant, GroupCentered, GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import GAMES, TokenGame
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import (
    EntropyBonus,
    FixedLength,
    LogLikelihood,
    PolicyGradient,
    TokenMean,
    TokenRatio,
    Unclipped,
    UnifiedGradient,
)
from stratagem.recipe import Recipe
from stratagem.recipes import amft, hpt
from stratagem.sampling import ByPassRate, Rollouts
from stratagem.seeding import generator
from stratagem.training.demonstrated import demonstrated_shares
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

SMALL = {"sampler.prompts_per_step": 4}


def train(
    folder: Path, recipe: Recipe, game: TokenGame | None = None, steps: int = 4
) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer after so many steps, and its metrics."""
    world = LabWorld(LabTask(game or GAMES["prompts"]), seed=0)
    settings = Settings(max(steps, 1), evaluation_episodes=0)
    trainer = Trainer(world.adapt(recipe.with_values(SMALL)), world, RunDirectory.create(folder), settings)
    return trainer, [trainer.step() for _ in range(steps)]


def gradient(recipe: Recipe, x: Experience, logp: torch.Tensor) -> torch.Tensor:
    leaf = logp.clone().requires_grad_()
    recipe.objective(PolicyOutput(leaf, entropy=torch.zeros_like(leaf)), x).loss.backward()
    return leaf.grad


# ---- HPT ------------------------------------------------------------------------------------------------------------


def test_with_the_gate_below_all_it_is_the_reinforcement_learning_alone_bit_for_bit(tmp_path):
    mixed, metrics = train(tmp_path / "mixed", hpt(gate=-1.0, length=3))
    alone = hpt().replace(
        sampler=Rollouts(),
        selections=(),
        advantage=GroupCentered(),
        objective=PolicyGradient(gate=Unclipped(), aggregation=FixedLength(3), regularizer=0.001 * EntropyBonus()),
    )
    apart, _ = train(tmp_path / "alone", alone)
    assert torch.equal(mixed.policy.logits, apart.policy.logits)
    assert [row["groups/demonstrated"] for row in metrics] == [0] * 4


def test_with_the_gate_above_all_it_is_the_supervision_alone_bit_for_bit(tmp_path):
    mixed, metrics = train(tmp_path / "mixed", hpt(gate=1.0))
    alone = hpt().replace(
        selections=(ByPassRate(1.0),),
        advantage=Constant(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean()),
    )
    apart, _ = train(tmp_path / "alone", alone)
    assert torch.equal(mixed.policy.logits, apart.policy.logits)
    assert [row["groups/demonstrated"] for row in metrics] == [1] * 4


def test_a_batch_of_both_kinds_has_the_two_losses_side_by_side():
    """Groups of 8 rollouts of two tokens: none, 2 and 4 of them right; the gate is 2 of 8."""
    success = [count > place for count in (0, 2, 4) for place in range(8)]
    own = Experience.from_lengths(
        [2] * 24,
        [1] * 24,
        [8] * 3,
        reward=torch.tensor(success).float(),
        success=success,
        action=torch.arange(48),
        old_logp=torch.full((48,), -1.0),
    )
    shown = Experience.from_lengths(
        [3] * 3,
        [1] * 3,
        [3],
        reward=[1.0] * 3,
        success=[True] * 3,
        action=torch.arange(48, 57),
        old_logp=torch.zeros(9),
    )
    recipe = hpt(gate=2 / 8, length=10, coefficient=0.3, entropy=0.0)
    x = recipe.prepare(own.with_demonstrations(shown, torch.arange(3)))
    assert x.action.tolist() == [
        48,
        49,
        50,
        51,
        52,
        53,
        *range(32, 48),
    ]
    assert demonstrated_shares(x) == {
        "groups/demonstrated": pytest.approx(2 / 3),
        "pass_rate/demonstrated": pytest.approx(1 / 8),
        "pass_rate/explored": 0.5,
    }
    found = gradient(recipe, x, torch.full((x.tokens,), -1.0))
    # Shown: -0.3 / 6 tokens. Explored: ratio 1, advantage +-1/2, over 8 trajectories and 10.
    expected = [-0.3 / 6] * 6 + [-0.5 / 80] * 8 + [0.5 / 80] * 8
    assert found.tolist() == pytest.approx(expected)


def test_prompts_of_which_all_are_right_teach_nothing():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=[1.0] * 3, success=[True] * 3, action=torch.arange(3))
    recipe = hpt(entropy=0.0)
    ready = recipe.prepare(x.replace(demonstrated=torch.tensor([False, False, True])))
    assert ready.action.tolist() == [0, 1]
    assert not recipe.objective.has_signal(ready)


def test_as_prompts_are_mastered_fewer_are_shown(tmp_path):
    game = GAMES["rare"]
    _, metrics = train(tmp_path, hpt(length=4), game, steps=60)
    first, last = (sum(row["groups/demonstrated"] for row in part) / 10 for part in (metrics[:10], metrics[-10:]))
    assert first > 0.3 and last < 0.1
    assert all(row["tokens/sampled"] == 4 * 8 * 4 for row in metrics), "demonstrations are not sampled"


def test_a_resumed_run_goes_on_as_if_unbroken(tmp_path):
    whole, _ = train(tmp_path / "whole", hpt(length=3), steps=4)
    first, _ = train(tmp_path / "first", hpt(length=3), steps=2)
    first.checkpoint()
    second, _ = train(tmp_path / "second", hpt(length=3), steps=0)
    second.resume(first.run_directory.load())
    second.step(), second.step()
    assert torch.equal(second.policy.logits, whole.policy.logits)


@pytest.mark.parametrize("blend", ["linear", "sigmoid"])
def test_a_blend_keeps_both_kinds_of_every_group(tmp_path, blend):
    _, metrics = train(tmp_path, hpt(length=3, blend=blend))
    assert all(row["batch/dropped_trajectories"] == 0 for row in metrics)
    assert all(row["demonstrations/policy_loss"] != 0 for row in metrics)


def test_a_gate_out_of_range_is_refused_with_a_blend_too():
    with pytest.raises(InputError, match=r"by_pass_rate\.gate = 2"):
        hpt(gate=2, blend="linear")


# ---- AMFT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_at_either_end_of_the_weight_one_recipe_is_left(tmp_path, weight):
    recipe = amft(initial=0.5).replace(schedules=()).with_values({"objective.weight": weight})
    blend = recipe.objective
    alone = recipe.replace(objective=blend.imitation if weight else blend.exploration)
    mixed, apart = train(tmp_path / "mixed", recipe)[0], train(tmp_path / "alone", alone)[0]
    assert torch.equal(mixed.policy.logits, apart.policy.logits)
    assert torch.equal(mixed.policy.values, apart.policy.values)
    assert bool(mixed.policy.values.any()) == (weight == 0), "no rollout, no critic"


def test_the_exploring_half_is_ppo_on_rollouts(tmp_path):
    """With no weight on imitation it learns as PPO does that never saw a demonstration."""
    recipe = amft().replace(schedules=()).with_values({"objective.weight": 0.0})
    exploration = recipe.objective.exploration.of
    ppo = recipe.replace(sampler=Rollouts(), advantage=recipe.advantage.of, objective=exploration)
    mixed, apart = train(tmp_path / "mixed", recipe)[0], train(tmp_path / "alone", ppo)[0]
    assert torch.equal(mixed.policy.logits, apart.policy.logits)
    assert torch.equal(mixed.policy.values, apart.policy.values)


def test_with_the_published_rates_the_weight_hardly_moves():
    """1e-4 times a learning rate of 1e-6 times any sound product of gradients, and 5e-4 times an entropy."""
    (schedule,) = amft().schedules
    assert schedule(51, {"entropy": 1.0})["objective.weight"] == 0.8
    large = {"gradient/learning_rate": 1e-6, "entropy": 0.0, "gradient/norm/validation": 100.0}
    large |= {"gradient/product/imitation": 1e4, "gradient/product/exploration": -1e4}
    moved = schedule(70, large)["objective.weight"] - 0.8
    # The entropies noted are 1 and 0, so the target is 1 / 2.
    assert moved == pytest.approx(2e-6 + 2.5e-4, rel=1e-3)


@pytest.mark.parametrize("arguments", [{"initial": 1.5}, {"initial": 0.01}, {"every": 0}, {"meta_rate": -1.0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(InputError, match="meta_weight"):
        amft(**arguments)


def test_validation_by_return_measures_fresh_rollouts(tmp_path):
    recipe = amft(validation="return", every=1, warm_up=0, normalized=True, meta_rate=0.1, entropy_rate=0.0)
    _, metrics = train(tmp_path, recipe)
    assert len({row["knob/objective.weight"] for row in metrics}) == 4
    assert all(row["tokens/sampled"] == 4 * 8 * 3 + 8 * 8 * 3 for row in metrics)
    with pytest.raises(InputError, match="validation 'reward'"):
        amft(validation="reward")


# ---- the row of the unified estimator for demonstrations ------------------------------------------------------------


def test_demonstrations_over_a_reference_of_one_are_the_composition_of_parts():
    """The offline row: advantages over rollouts and demonstrations together, ``pi`` itself as the weight."""
    source = generator(0, "offline")
    own = Experience.from_lengths(
        [2, 1, 3, 1], [1] * 4, [2, 2], reward=[1.0, 0.0, 0.0, 0.0], behavior_logp=torch.full((7,), -0.5)
    )
    shown = Experience.from_lengths([2, 1], [1, 1], [2], reward=[1.0, 1.0], behavior_logp=torch.zeros(3))
    x = own.with_demonstrations(shown, torch.arange(2))
    parts = Recipe(
        "offline",
        Rollouts(demonstrations=1),
        GroupStandardized(),
        PolicyGradient(ratio=TokenRatio("behavior"), gate=Unclipped(), aggregation=TokenMean()),
    )
    unified = parts.replace(objective=UnifiedGradient("behavior", "none"))
    ready = parts.prepare(x)
    # Together the second group is (0, 0, 1): its rollouts, all wrong, are credited since the demonstration is right.
    of = ready.trajectory_of_token.first()
    deviation = (1 / 3) ** 0.5
    expected = [1 / 3, -2 / 3, 1 / 3, -1 / 3, -1 / 3, 2 / 3]
    assert (ready.advantage[of] * deviation).tolist() == pytest.approx(expected, abs=1e-5)
    logp = -torch.rand(ready.tokens, generator=source)
    found = gradient(parts, ready, logp)
    torch.testing.assert_close(found, gradient(unified, ready, logp))
    shown_tokens = ready.trajectory_of_token.spread(ready.demonstrated)
    torch.testing.assert_close(found[shown_tokens], (-logp.exp() * ready.advantage / ready.tokens)[shown_tokens])
