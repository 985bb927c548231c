"""What independent choices by attributes can earn at most, by enumeration, and that training comes near it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stratagem.allocation import (
    NOBODY,
    AllocationTask,
    Instances,
    Learner,
    TwoStageAllocation,
    TwoStagePolicy,
    optimum,
)
from stratagem.seeding import generator

KINDS, ENTITIES, TASKS = 4, 4, 3
"""Each of four entities is one of four kinds, drawn evenly; three tasks are always the same."""


def _every(count: int, of: Tensor) -> Tensor:
    """All rows of so many entries."""
    return torch.cartesian_prod(*[of] * count)


def _crowds(tasks: Instances, kinds: Tensor) -> Instances:
    """Instances with these tasks, whose entities are of these kinds."""
    crowds = tasks.at(torch.zeros(len(kinds), dtype=torch.long))
    return Instances.of(crowds.value, crowds.demand, tasks.cost[0, kinds], tasks.capacity[0, kinds])


def _earned(tasks: Instances) -> tuple[Tensor, Tensor, Instances]:
    """For every crowd what all choices of tasks earn, its volunteers being used as well as can be; and the optimum."""
    crowds = _crowds(tasks, _every(ENTITIES, torch.arange(KINDS)))
    allocations = _every(ENTITIES, torch.arange(NOBODY, TASKS))
    worth = crowds.at(torch.arange(len(crowds)).repeat_interleave(len(allocations))).total(
        allocations.repeat(len(crowds), 1)
    )
    worth = worth.view(len(crowds), len(allocations))
    choices = _every(ENTITIES, torch.arange(TASKS))
    allowed = ((allocations.unsqueeze(1) == choices) | (allocations.unsqueeze(1) == NOBODY)).all(-1)
    earned = torch.stack([worth[:, column].amax(1) for column in allowed.T], 1)
    return earned, worth.amax(1), crowds


def _limit(earned: Tensor) -> float:
    """Of the best map from kinds to tasks: the mean over crowds."""
    kinds = _every(ENTITIES, torch.arange(KINDS))
    place = torch.tensor([TASKS**power for power in reversed(range(ENTITIES))])
    return max(
        float(earned.gather(1, (choice[kinds] * place).sum(1, keepdim=True)).mean())
        for choice in _every(KINDS, torch.arange(TASKS))
    )


def _trained(tasks: Instances, rounds: int, seed: int) -> TwoStagePolicy:
    technique = TwoStageAllocation(learning_rate=3e-3, buffer=5000, batch=32, updates=2, slowness=0.02)
    task = AllocationTask("tiny", entities=KINDS, slots=TASKS, demand=(4.0, 12.0))
    learner = Learner(technique, technique.policy(task, seed), seed)
    for number in range(rounds):
        source = generator(seed, "crowd", number)
        crowds = _crowds(tasks, torch.randint(KINDS, (32, ENTITIES), generator=source))
        learner.remember(crowds, learner.policy.decide(crowds, source, record=True))
        learner.learn(number)
    return learner.policy


def test_the_enumeration_knows_the_optimum():
    tasks = AllocationTask("tiny", entities=KINDS, slots=TASKS, demand=(4.0, 12.0)).draw(1, 1000)
    earned, best, crowds = _earned(tasks)
    some = torch.arange(0, len(crowds), 50)
    torch.testing.assert_close(optimum(crowds.at(some)).value, best[some])
    torch.testing.assert_close(earned.amax(1), best)


def test_alike_entities_choose_alike_unless_they_draw():
    tasks = [(5, [4, 4, 4]), (4, [4, 4, 4]), (3, [4, 4, 4])]
    crowd = Instances.single(tasks, [(0.5, [4, 4, 4])] * ENTITIES)
    assert optimum(crowd).value == pytest.approx(5 + 4 + 3 - 1.5)
    task = AllocationTask("tiny", entities=ENTITIES, slots=TASKS)
    likeliest, drawn = (TwoStageAllocation(sampled=sampled).policy(task, 0) for sampled in (False, True))
    many, source = crowd.repeat(200), generator(0)
    assert many.total(likeliest.allocate(many, source)).max() <= 5 - 0.5
    assert many.total(drawn.allocate(many, source)).mean() > 6


@pytest.mark.parametrize("seed", [1000, 1002])
def test_training_comes_near_the_limit_of_independent_choices(seed):
    tasks = AllocationTask("tiny", entities=KINDS, slots=TASKS, demand=(4.0, 12.0)).draw(1, seed)
    earned, best, crowds = _earned(tasks)
    limit, source = _limit(earned), generator(seed)
    assert limit < 0.95 * best.mean()
    policy = _trained(tasks, 120, seed)
    fresh = TwoStageAllocation().policy(AllocationTask("tiny", entities=KINDS, slots=TASKS), seed)
    mine, before = (float(crowds.total(one.allocate(crowds, source)).mean()) for one in (policy, fresh))
    assert before < mine <= limit + 1e-9 and mine >= 0.8 * limit
