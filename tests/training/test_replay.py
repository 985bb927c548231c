"""Old batches in new ones: what comes back, as what, and what is said of it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from stratagem.catalogue import card
from stratagem.experience import Experience
from stratagem.lab import GAMES
from stratagem.lab.world import LabTask, LabWorld
from stratagem.sampling import RecentBatches, Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.replay import ReplayBuffer, replay_metrics
from stratagem.training.run_directory import RunDirectory

FOUR = Rollouts(prompts_per_step=4, group_size=3)
HALF = RecentBatches(2, 0.5)


@pytest.fixture
def world() -> LabWorld:
    return LabWorld(LabTask(GAMES["length"]), seed=0)


def collected(world: LabWorld, step: int) -> Experience:
    """A batch of a version of its own; the policy moves afterwards."""
    world.serve(step)
    x = world.collect(FOUR, step).x
    with torch.no_grad():
        world.policy.logits.add_(torch.randn(world.policy.logits.shape, generator=torch.Generator().manual_seed(step)))
    return x


def test_a_mixed_batch_is_the_fresh_one_and_groups_of_the_last_batches_as_they_were(world):
    buffer, seen = ReplayBuffer(0), []
    for step in range(4):
        seen.append(collected(world, step))
        mixed = buffer.mix(HALF, seen[-1], step).x
        assert mixed.groups == (4 if step == 0 else 8)
    assert mixed.version.unique().tolist() == [1, 2, 3]
    fresh = mixed.select(torch.arange(12))
    assert torch.equal(fresh.action, seen[-1].action) and torch.equal(fresh.behavior_logp, seen[-1].behavior_logp)
    for group in range(4, 8):
        old = mixed.select(mixed.group_of_trajectory.labels == group)
        [version] = old.version.unique().tolist()
        like = [seen[version].select(seen[version].group_of_trajectory.labels == other) for other in range(4)]
        assert any(
            old.action.tolist() == one.action.tolist()
            and torch.equal(old.behavior_logp, one.behavior_logp)
            and torch.equal(old.reward, one.reward)
            for one in like
        )


def test_without_a_replay_nothing_changes_and_all_is_forgotten(world):
    buffer = ReplayBuffer(0)
    buffer.mix(HALF, collected(world, 0), 0)
    x = collected(world, 1)
    assert buffer.mix(None, x, 1).x is x
    assert buffer.state_dict() == ({}, [])
    assert buffer.mix(HALF, x, 2).x is x


def test_what_policies_said_of_old_batches_is_for_the_present_ones_to_say(world):
    buffer = ReplayBuffer(0)
    for step in range(2):
        x = collected(world, step)
        mixed = buffer.mix(HALF, x.replace(value=torch.zeros(x.tokens), entropy=torch.zeros(x.tokens)), step).x
    assert mixed.value is None and mixed.entropy is None and mixed.behavior_logp is not None


def test_a_restored_buffer_mixes_the_same(world):
    buffer, again = ReplayBuffer(3), ReplayBuffer(3)
    for step in range(3):
        buffer.mix(HALF, collected(world, step), step)
    tensors, plain = buffer.state_dict()
    again.load_state_dict(tensors, json.loads(json.dumps(plain)))
    x = collected(world, 3)
    one, other = (held.mix(HALF, x, 3).x for held in (buffer, again))
    assert torch.equal(one.action, other.action) and torch.equal(one.inputs.node, other.inputs.node)
    assert not torch.equal(one.action, ReplayBuffer(4).mix(HALF, x, 3).x.action)


def test_figures_of_a_mixed_batch_worked_by_hand():
    # A fresh trajectory, then old ones of one, two and four tokens.
    drift = torch.tensor([9.0, 9.0, 0.1, 0.3, -0.3, 0.5, -0.5, 0.5, -0.5])
    x = Experience.from_lengths([2, 1, 2, 4], [1] * 4, [2, 2], old_logp=drift, behavior_logp=torch.zeros(9))
    metrics = replay_metrics(x, torch.tensor([False, True, True, True]))
    centers = [math.exp(value) for value in drift[2:].tolist()]
    assert metrics == pytest.approx(
        {
            "replay/share": 0.75,
            "replay/mean_length": 7 / 3,
            "replay/center": sum(centers) / 7,
            "replay/center_min": math.exp(-0.5),
            "replay/center_max": math.exp(0.5),
            "replay/drift_short": 0.7 / 3,
            "replay/drift_long": 0.5,
        }
    )
    masked = replay_metrics(x.replace(mask=torch.arange(9) < 2), torch.tensor([False, True, True, True]))
    assert set(masked) == {"replay/share", "replay/mean_length"}
    alike = replay_metrics(x.select(torch.tensor([1, 0])), torch.tensor([True, False]))
    assert alike["replay/center"] == pytest.approx(math.exp(0.1)) and "replay/drift_long" not in alike


def test_an_old_trajectory_may_stand_anywhere_in_the_batch():
    x = Experience.from_lengths([1, 2], [1, 1], [2], old_logp=torch.zeros(3), behavior_logp=torch.tensor([1.0, 0, 0]))
    metrics = replay_metrics(x, torch.tensor([True, False]))
    assert metrics["replay/mean_length"] == 1 and metrics["replay/center"] == pytest.approx(math.exp(-1))


# ---- in the trainer --------------------------------------------------------------------------------------------------


def test_only_fresh_samples_are_counted_and_every_mixed_batch_knows_where_its_update_starts(tmp_path, world):
    recipe = world.adapt(card("remix").recipe(on="grpo", epochs=1)).with_values({"sampler.group_size": 4})
    trainer = Trainer(recipe, world, RunDirectory.create(tmp_path / "run"), Settings(4, evaluation_episodes=0))
    batches = []
    trainer._companions.complete, complete = (
        lambda *given: batches.append(complete(*given)) or batches[-1],
        trainer._companions.complete,
    )
    rows = [trainer.step() for _ in range(4)]
    assert [row["episodes"] for row in rows] == [32.0] * 4
    assert [row["batch/trajectories"] > 32 for row in rows] == [False, True, True, True]
    for row, x in zip(rows, batches, strict=True):
        assert x.old_logp is not None
        fresh = x.trajectory_of_token.labels < 32
        assert row["tokens/sampled"] == int(fresh.sum())
        torch.testing.assert_close(x.old_logp[fresh], x.behavior_logp[fresh])
    assert rows[-1]["tokens/total"] == sum(row["tokens/sampled"] for row in rows)
    assert float((batches[-1].old_logp - batches[-1].behavior_logp).abs().max()) > 1e-3
    assert "replay/share" not in rows[0] and rows[-1]["replay/share"] == pytest.approx(0.4, abs=0.05)
