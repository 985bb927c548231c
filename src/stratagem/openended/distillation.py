"""A new generation begins where the last one ended: a student learns to act and to value as its teacher does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.openended.grid import Grid
from stratagem.openended.policy import GoalPolicy
from stratagem.openended.task import OpenEndedTask
from stratagem.seeding import derive, generator
from stratagem.validation import validate_fields


@dataclass(frozen=True)
class Distillation:
    """Steps on ``KL(teacher || student) + value_weight (V_student - V_teacher)^2`` over states that were visited.

    A step plays ``tasks`` training tasks, in each of which the student acts with probability ``own`` and the teacher
    otherwise, and learns from all states of them; of a task with several players that is drawn for every seat, and all
    seats are learned from. It ends when ``KL(student || teacher)`` over the states of a step is
    below ``until``, measured before learning from them, or after ``steps``.

    Source: arXiv 2107.12808, generations; the share, the bound and the numbers are ours. Raises :class:`InputError` for
    a value out of range.
    """

    steps: Annotated[int, Ge(0)] = 200
    tasks: Annotated[int, Ge(1)] = 64
    own: Annotated[float, Ge(0), Le(1)] = 0.5
    until: Annotated[float, Ge(0)] = 0.05
    value_weight: Annotated[float, Ge(0)] = 0.1
    learning_rate: Annotated[float, Gt(0)] = 3e-3
    minibatches: Annotated[int, Ge(1)] = 4

    def __post_init__(self) -> None:
        validate_fields(self, "distillation")

    def __call__(
        self,
        student: GoalPolicy,
        teacher: GoalPolicy,
        task: OpenEndedTask,
        seed: int,
        progress: Callable[[int, float], None] = lambda step, divergence: None,
    ) -> tuple[float, int]:
        """Train the student in place; returns the last ``KL(student || teacher)`` and the environment steps taken."""
        optimizer = torch.optim.Adam(student.parameters(), self.learning_rate)
        divergence, spent = torch.inf, 0
        for step in range(self.steps + 1):
            seen = self._visited(student, teacher, task, derive(seed, "distil", step))
            spent += len(seen) // task.players
            with torch.no_grad():
                divergence = float(kl(student.distribution(seen), teacher.distribution(seen)))
                target, value = teacher.distribution(seen), teacher.values(seen)
            progress(step, divergence)
            if divergence < self.until or step == self.steps:
                break
            order = torch.randperm(len(seen), generator=generator(seed, "order", step))
            for rows in order.chunk(self.minibatches):
                loss = kl(target[rows], student.distribution(seen[rows]))
                loss = loss + self.value_weight * (student.values(seen[rows]) - value[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return divergence, spent

    def _visited(
        self, student: GoalPolicy, teacher: GoalPolicy, task: OpenEndedTask, seed: int
    ) -> Float[Tensor, "states features"]:
        source = generator(seed, "act")
        numbers = torch.randint(2**31, (self.tasks,), generator=source).tolist()
        grid, seen = Grid(task, task.tasks("train", numbers)), []
        own = torch.rand(self.tasks * task.players, generator=source) < self.own
        while not grid.done:
            seen.append(grid.observation())
            acted = [policy.draw(seen[-1], source) for policy in (student, teacher)]
            grid.step(torch.where(own, acted[0], acted[1]))
        return torch.cat(seen)


def kl(one: Float[Tensor, "states actions"], other: Float[Tensor, "states actions"]) -> Float[Tensor, ""]:
    """``KL(one || other)``, mean over states, of log-probabilities."""
    return (one.exp() * (one - other)).sum(-1).mean()
