"""Curricula where episodes are played: language and control; other worlds say that they take none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from stratagem.control.task import GymTask
from stratagem.control.world import ControlWorld
from stratagem.errors import InputError
from stratagem.hybrid.policy import HybridPolicy, Shape
from stratagem.hybrid.task import HybridTask
from stratagem.hybrid.world import HybridWorld
from stratagem.parts import Curriculum
from stratagem.prompts import Pool
from stratagem.sampling import DynamicSampling, Rollouts, Shuffled
from stratagem.tasks import registry

TEXTS: list[list[str]] = []


@dataclass(frozen=True)
class _Last(Curriculum):
    """The last start states of the pool, two trajectories of the first group and the rest of the last."""

    prompts: int | None = 9

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> torch.Tensor:
        if pool.read is not None:
            TEXTS.append(pool.read(pool.number[-groups:].tolist()))
        return torch.arange(len(pool) - groups, len(pool))

    def sizes(self, pool: Pool, chosen: torch.Tensor, group_size: int, source: torch.Generator) -> torch.Tensor:
        least = torch.full_like(chosen, 2)
        least[-1] = len(chosen) * group_size - 2 * (len(chosen) - 1)
        return least

    def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
        return 2, groups * group_size - 2 * (groups - 1)


def test_language_plays_what_the_curriculum_says(make_world: Any):
    task, sampler = (
        registry.make("calculator:max_turns=1"),
        Rollouts(prompts_per_step=2, group_size=3, curriculum=_Last()),
    )
    world = make_world(task)
    world.serve(1)
    TEXTS.clear()
    x = world.collect(sampler, 0).x
    assert x.task_id.tolist() == [7, 8] and x.group_of_trajectory.size().tolist() == [2, 4]
    assert len(x.episode.unique()) == 6 and len(x.seed.unique()) == 6
    [texts] = TEXTS
    assert texts == [task.environment("train", index).reset().text for index in (7, 8)]
    again = world.collect(sampler, 1).x
    # Other numbers of groups, so other draws from the same start states.
    assert again.task_id.tolist() == [7, 8] and not set(again.seed.tolist()) & set(x.seed.tolist())
    assert sampler.history.visits.tolist() == [2, 2] and sampler.history.trajectories.tolist() == [4, 8]


def test_rejected_groups_of_language_give_way_to_other_start_states(make_world: Any):
    world = make_world(registry.make("calculator:max_turns=1"))
    world.serve(1)
    # An untrained model earns nothing anywhere: every group is rejected.
    sampler = DynamicSampling(prompts_per_step=2, group_size=2, refill_rounds=2, curriculum=Shuffled(prompts=6))
    collected = world.collect(sampler, 0)
    assert collected.metrics["groups/rejected"] == 6 and collected.metrics["curriculum/seen"] == 6
    assert sampler.history.number.tolist() == [0, 1, 2, 3, 4, 5]


def test_control_plays_what_the_curriculum_says():
    world = ControlWorld(GymTask("CartPole-v1", max_turns=20), seed=1000)
    sampler = Rollouts(prompts_per_step=2, group_size=3, curriculum=_Last())
    first, second = world.collect(sampler, 0).x, world.collect(sampler, 1).x
    assert first is not None and second is not None and first.task_id is not None
    assert first.task_id.tolist() == [7, 8] and first.group_of_trajectory.size().tolist() == [2, 4]
    starts = [x.inputs.observation[x.trajectory_of_token.first()] for x in (first, second)]
    torch.testing.assert_close(*starts)
    assert not torch.equal(starts[0][0], starts[0][2]) and torch.equal(starts[0][2], starts[0][5])
    kept = sampler.history
    assert kept.visits.tolist() == [2, 2] and kept.recent_return(1).tolist() == pytest.approx(
        [float(second.returns[:2].mean()), float(second.returns[2:].mean())]
    )


def test_worlds_without_named_start_states_say_so():
    task = HybridTask("compare")
    world = HybridWorld(task, 0, HybridPolicy(Shape.of(task), 0))
    with pytest.raises(InputError, match="curriculum = shuffled: a hybrid policy takes start states in their order"):
        world.collect(Rollouts(curriculum=Shuffled(prompts=3)), 0)
