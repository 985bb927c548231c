"""Where allocations are made and carried out: single ones, or a field that entities walk over, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from stratagem.allocation.instances import NOBODY, Allocation, Instances
from stratagem.allocation.tasks import AllocationTask
from stratagem.seeding import derive, generator


@dataclass(frozen=True, eq=False)
class Offered:
    """Tasks of an episode, in the order in which they come: their values, demands and cells."""

    value: Float64[Tensor, "n backlog"]
    demand: Float64[Tensor, "n backlog kinds"]
    cell: Int64[Tensor, "n backlog 2"]


class Field:
    """``count`` episodes side by side. Everything drawn follows from seed and episode.

    Of a task with one step every episode is one allocation. Otherwise: an allocated entity walks a cell a step towards
    its task and is busy until that is completed, which it is when those of its entities that have arrived cover it.
    It pays the value it then has, less the cost of its entities; a task that waits longer than its patience is worth
    less with every step, until it is completed. Empty slots are filled every ``refill`` steps as long as tasks are
    left, so that none pays twice, and one without demands is completed by the first step it is offered in.

    An allocation is completed whatever it is worth by then; only tasks that no allocation covers are left alone.
    """

    def __init__(self, task: AllocationTask, count: int, seed: int) -> None:
        self.task, self.count, self.seed = task, count, seed
        self.episode = NOBODY
        self.restart()

    def restart(self) -> None:
        """Begin the next episode everywhere."""
        task, count = self.task, self.count
        self.episode += 1
        self.step_number = 0
        if not task.walked:
            self.instances = task.draw(count, derive(self.seed, "single", self.episode))
            return
        source = generator(self.seed, "episode", self.episode)
        self.cost, self.capacity = task.entity_columns(count, source)
        value, demand = task.task_columns(count, task.backlog, source)
        self.offered = Offered(value, demand, self._cells(task.backlog, source))
        centre = torch.full((count, task.entities, 2), task.side // 2)
        self.position = self._cells(task.entities, source) if task.scattered else centre
        self.gone = torch.zeros(count, task.entities, dtype=torch.bool)
        self.work = torch.full((count, task.entities), NOBODY)
        self.slot = torch.full((count, task.slots), NOBODY)
        self.age = torch.zeros(count, task.slots, dtype=torch.int64)
        self.next_task = torch.zeros(count, dtype=torch.int64)
        self._fill()
        self.instances = self._seen()

    def _cells(self, places: int, source: torch.Generator) -> Int64[Tensor, "n places 2"]:
        return torch.randint(self.task.side, (self.count, places, 2), generator=source)

    @property
    def done(self) -> bool:
        """Whether the episode is over: its steps, or the tasks of all."""
        if not self.task.walked:
            return self.step_number >= 1
        idle = bool((self.slot == NOBODY).all()) and bool((self.next_task >= self.task.backlog).all())
        return self.step_number >= self.task.steps or idle

    def step(self, allocation: Allocation) -> Float64[Tensor, " n"]:
        """Carry an allocation out for a step; returns what was earned in it.

        Tasks that it does not cover, and those that would lose by it, are left alone. Raises ``ValueError`` for an
        allocation that is not allowed, and when the episode is over.
        """
        if self.done:
            raise ValueError("the episode is over")
        kept = self.instances.without_losses(allocation)
        self.step_number += 1
        if not self.task.walked:
            return self.instances.worth(kept).sum(-1)
        self.work = torch.where(kept == NOBODY, self.work, kept)
        self._walk()
        earned = self._complete()
        self.age += self.slot != NOBODY
        if self.step_number % self.task.refill == 0:
            self._fill()
        self.instances = self._seen()
        return earned

    # ---- what happens ----------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give the next tasks to the empty slots, in order."""
        empty = self.slot == NOBODY
        number = self.next_task.unsqueeze(1) + empty.long().cumsum(1) - 1
        given = empty & (number < self.task.backlog)
        self.slot = torch.where(given, number, self.slot)
        self.age = self.age.masked_fill(given, 0)
        self.next_task = self.next_task + given.sum(1)

    def _walk(self) -> None:
        apart = self._cell_of_work() - self.position
        apart = apart.masked_fill((self.work == NOBODY).unsqueeze(-1), 0)
        move = apart.sign()
        if not self.task.diagonal:
            # Along the axis on which more is left; the first one among equals.
            first = apart[..., 0].abs() >= apart[..., 1].abs()
            move = torch.stack([move[..., 0].where(first, 0), move[..., 1].where(~first, 0)], -1)
        self.position = self.position + move

    def _complete(self) -> Float64[Tensor, " n"]:
        works = self.work.unsqueeze(1) == torch.arange(self.task.slots).view(1, -1, 1)
        there = works & (self.position == self._cell_of_work()).all(-1).unsqueeze(1)
        now = self._seen()
        full = Instances(**{**vars(now), "open": self.slot != NOBODY})
        done: Bool[Tensor, "n tasks"] = full.covered(there)
        paid = torch.einsum("nte,ne->nt", works.to(self.cost.dtype), self.cost)
        earned = torch.where(done, now.value - paid, 0.0).sum(-1)
        released = (works & done.unsqueeze(-1)).any(1)
        self.work = self.work.masked_fill(released, NOBODY)
        if self.task.consumed:
            self.gone = self.gone | released
        self.slot = self.slot.masked_fill(done, NOBODY)
        return earned

    # ---- what is seen ----------------------------------------------------------------------------------------------

    def _of_slot(self, column: Tensor) -> Tensor:
        """A column of the offered tasks, by slot; that of the first task for an empty one."""
        number = self.slot.clamp(min=0)
        if column.ndim == 3:
            number = number.unsqueeze(-1).expand(-1, -1, column.shape[-1])
        return column.gather(1, number)

    def _cell_of_work(self) -> Int64[Tensor, "n entities 2"]:
        number = self.work.clamp(min=0).unsqueeze(-1).expand(-1, -1, 2)
        return self._of_slot(self.offered.cell).gather(1, number)

    def _seen(self) -> Instances:
        """Open: slots with a task nobody works on. Values as they are by now."""
        task, count = self.task, self.count
        taken = (self.work.unsqueeze(1) == torch.arange(task.slots).view(1, -1, 1)).any(-1)
        late = (self.age - task.patience).clamp(min=0).to(torch.float64)
        value = self._of_slot(self.offered.value) * task.decay**late
        places = 2 if task.placed else 0
        return Instances(
            value,
            self._of_slot(self.offered.demand),
            self.cost,
            self.capacity,
            (self.slot != NOBODY) & ~taken,
            (self.work == NOBODY) & ~self.gone,
            self._of_slot(self.offered.cell)[..., :places].to(torch.float64).view(count, task.slots, places),
            self.position[..., :places].to(torch.float64).view(count, task.entities, places),
        )
