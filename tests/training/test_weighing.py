"""Rewards weighed anew while a recipe runs, with gradients of a real policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.advantages import GroupStandardized, LeaveOneOut
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import TabularPolicy, find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceSum
from stratagem.recipe import Recipe
from stratagem.recipes import dynamic_reward_weighting, gradient_reward_weighting, rloo
from stratagem.rewards import RewardWeights
from stratagem.sampling import Rollouts
from stratagem.schedules import FrontGain, GradientInfluence
from stratagem.training.loop import Settings, Trainer
from stratagem.training.probes import RunGauge
from stratagem.training.run_directory import RunDirectory

SCALE = "knob/rewards.reward_weights.scale"
PLAIN = PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum())


def trainer(folder: Path, recipe: Recipe, game: str = "styles", **settings: Any) -> Trainer:
    world = LabWorld(LabTask(find_game(game)), seed=1000)
    settings = {"steps": 4, "evaluation_episodes": 0, **settings}
    return Trainer(world.adapt(recipe), world, RunDirectory.create(folder), Settings(seed=1000, **settings))


def batch() -> tuple[TabularPolicy, Experience]:
    """A table and what it did, with two rewards of equal weight."""
    world = LabWorld(LabTask(find_game("styles")), seed=1000)
    x = world.collect(gradient_reward_weighting().sampler, 0).x
    return world.policy, RewardWeights((1.0, 1.0))(x)


def gauge(recipe: Recipe, policy: TabularPolicy) -> RunGauge:
    return RunGauge(recipe, policy, lambda sampler: None, lambda x: x)


def gradient(policy: TabularPolicy, x: Experience, advantage: Any) -> torch.Tensor:
    x = x.replace(advantage=advantage(x).detach(), turn_reward=None)
    (found,) = torch.autograd.grad(PLAIN(policy(x), x).loss, [policy.logits])
    return found.double().flatten()


def only(x: Experience, column: int) -> Experience:
    return x.replace(reward=x.reward[:, column], reward_names=("one",), reward_weights=(1.0,), turn_reward=None)


# ---- by their gradients ---------------------------------------------------------------------------------------------


def test_influences_are_inner_products_of_the_gradients_of_single_rewards():
    policy, x = batch()
    before = policy.logits.detach().clone()
    schedule = GradientInfluence(0.01, max_norm=None, advantage=LeaveOneOut(), objective=PLAIN)
    credited, metrics = schedule.before_credit(0, x, gauge(gradient_reward_weighting(), policy))
    one, other = (gradient(policy, only(x, column), LeaveOneOut()) for column in (0, 1))
    expected = [float(g @ (one + other)) for g in (one, other)]
    assert [metrics[f"influence/{name}"] for name in x.reward_names] == pytest.approx(expected, rel=1e-5)
    assert metrics["gradient/norm/accuracy"] == pytest.approx(float(one.norm()), rel=1e-5)
    moved = torch.softmax(0.01 * torch.tensor(expected), 0).tolist()
    assert credited.reward_weights == pytest.approx(moved, rel=1e-5)
    assert metrics["weight/brevity"] == credited.reward_weights[1]
    assert torch.equal(policy.logits, before) and policy.logits.grad is None


def test_single_gradients_add_up_to_that_of_the_weighted_reward_unless_it_is_standardised():
    policy, x = batch()
    weighted = x.replace(reward_weights=(0.3, 0.7))
    for advantage, adds_up in ((LeaveOneOut(), True), (GroupStandardized(), False)):
        parts = sum(w * gradient(policy, only(x, k), advantage) for k, w in enumerate((0.3, 0.7)))
        gap = float((gradient(policy, weighted, advantage) - parts).norm() / parts.norm())
        assert (gap < 1e-5) == adds_up and (adds_up or gap > 0.01)


def test_pieces_of_a_batch_have_the_influences_of_the_whole():
    policy, x = batch()
    recipe = gradient_reward_weighting()
    found = [
        GradientInfluence().before_credit(
            0, x, gauge(recipe.with_values({"optimization.microbatch_tokens": n}), policy)
        )[1]
        for n in (None, 5)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_batch_is_learned_from_with_its_new_weights(tmp_path):
    recipe = gradient_reward_weighting((0.5, 0.5), step=0.0).replace(base=None)
    moving = recipe.with_values({"schedules.gradient_influence.step": 5.0})
    runs = [trainer(tmp_path / name, one) for name, one in (("still", recipe), ("moving", moving))]
    first = [run.step() for run in runs]
    assert (first[0]["weight/accuracy"], first[0]["weight/brevity"]) == (0.5, 0.5)
    assert first[1]["weight/accuracy"] != 0.5
    assert first[1]["weight/accuracy"] + first[1]["weight/brevity"] == pytest.approx(1)
    assert not torch.equal(runs[0].policy.logits, runs[1].policy.logits), "in the same step"
    fixed = trainer(tmp_path / "fixed", recipe.replace(schedules=()))
    fixed.step()
    torch.testing.assert_close(fixed.policy.logits, runs[0].policy.logits)


def test_a_task_with_one_reward_is_left_alone(tmp_path):
    run = trainer(tmp_path, gradient_reward_weighting(), "graded")
    row = run.step()
    assert row["weight/reward"] == 1


# ---- by the front ---------------------------------------------------------------------------------------------------


def test_rewards_are_validated_before_the_first_batch_and_cost_tokens(tmp_path):
    recipe = dynamic_reward_weighting((0.5, 0.5), every=2)
    run = trainer(tmp_path, recipe)
    rows = [run.step() for _ in range(4)]
    assert ["validation/accuracy" in row for row in rows] == [True, False, True, False]
    assert "validation/brevity" not in rows[0], "the task notes it without pay"
    assert [row["tokens/sampled"] for row in rows] == [64 + 32, 64, 64 + 32, 64]
    assert rows[0][SCALE] == rows[1][SCALE] == 1
    assert rows[2][SCALE] == rows[3][SCALE] != 1


def test_which_rewards_are_validated_may_be_said():
    _, x = batch()
    means = x.reward.double().mean(0).tolist()
    x = x.replace(reward_weights=(1.0, 0.0))
    assert FrontGain().means(x) == pytest.approx({"accuracy": means[0]})
    assert FrontGain(names=("brevity", "accuracy")).means(x) == pytest.approx(
        {"brevity": means[1], "accuracy": means[0]}
    )
    bare = Experience.from_lengths([1, 1], [1, 1], [2], turn_reward=[1.0, 0.0])
    assert FrontGain().means(bare) == {"reward": 0.5}
    with pytest.raises(InputError, match=r"unknown reward in front_gain\.names"):
        FrontGain(names=("clarity",)).means(x)


def test_a_run_that_was_resumed_goes_on_as_one_that_was_not(tmp_path):
    both = dynamic_reward_weighting((0.5, 0.5)).replace(
        schedules=(FrontGain(sampler=Rollouts(512, 1), names=("brevity",)), GradientInfluence(1.0, normalized=True))
    )
    names = (SCALE, "weight/accuracy", "validation/brevity")
    unbroken, first = trainer(tmp_path / "whole", both, steps=6), trainer(tmp_path / "first", both, steps=6)
    rows = [unbroken.step() for _ in range(6)]
    for _ in range(3):
        first.step()
    first.checkpoint()
    second = trainer(tmp_path / "second", both, steps=6)
    second.resume(first.run_directory.load())
    again = [second.step() for _ in range(3)]
    assert [[row[name] for name in names] for row in again] == [[row[name] for name in names] for row in rows[3:]]
    assert torch.equal(second.policy.logits, unbroken.policy.logits)
    assert len({row[SCALE] for row in rows}) > 2


def test_a_common_factor_of_all_rewards_is_nothing_to_grpo_and_a_factor_to_rloo():
    _, x = batch()
    scaled = RewardWeights(scale=1.7)(x)
    assert scaled.reward_weights == (1.7, 1.7) and torch.equal(scaled.reward, x.reward)
    grpo_like = GroupStandardized()
    torch.testing.assert_close(grpo_like(scaled), grpo_like(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rloo().advantage(scaled), 1.7 * rloo().advantage(x))
