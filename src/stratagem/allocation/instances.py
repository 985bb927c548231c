"""Allocation instances, many at once: tasks with demands, entities with capacities, and what an allocation is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from stratagem.errors import InputError

NOBODY = -1
"""In an allocation: the entity works on no task."""

TOLERANCE = 1e-9
"""A demand of which no more than this is left is met."""

Allocation = Int64[Tensor, "instances entities"]
"""The task of every entity, or ``NOBODY``. A task's entities are therefore disjoint from any other's."""


@dataclass(frozen=True, eq=False)
class Instances:
    """``n`` instances of one size.

    A task pays ``value`` once if the capacities of its entities add up to at least its demand in every kind; the cost
    of its entities is paid anyway.

    value, demand: of tasks, at least 0.  cost, capacity: of entities, at least 0.
    open, free: tasks that may be given entities, entities that may be given. What is closed or busy holds any numbers.
    task_place, entity_place: further attributes, such as a position, that a policy may see; none by default.

    Raises :class:`InputError` for shapes that do not fit and for open tasks or free entities with numbers that are
    negative or not finite.
    """

    value: Float64[Tensor, "n tasks"]
    demand: Float64[Tensor, "n tasks kinds"]
    cost: Float64[Tensor, "n entities"]
    capacity: Float64[Tensor, "n entities kinds"]
    open: Bool[Tensor, "n tasks"]
    free: Bool[Tensor, "n entities"]
    task_place: Float64[Tensor, "n tasks places"]
    entity_place: Float64[Tensor, "n entities places"]

    def __post_init__(self) -> None:
        for value, vector, seen, place, what in (
            (self.value, self.demand, self.open, self.task_place, "task"),
            (self.cost, self.capacity, self.free, self.entity_place, "entity"),
        ):
            if not vector.shape[:2] == value.shape == seen.shape == place.shape[:2]:
                raise InputError(f"instances: one row of every attribute is needed for each {what}")
            numbers = torch.cat([value.unsqueeze(-1), vector], -1)[seen]
            if not bool(((numbers >= 0) & numbers.isfinite()).all()):
                raise InputError(f"instances: the numbers of a {what} must be finite and at least 0")
        if self.demand.shape[-1] != self.capacity.shape[-1]:
            raise InputError(
                f"instances: demands are of {self.demand.shape[-1]} kinds, capacities of {self.capacity.shape[-1]}"
            )

    @classmethod
    def of(
        cls,
        value: Float64[Tensor, "n tasks"],
        demand: Float64[Tensor, "n tasks kinds"],
        cost: Float64[Tensor, "n entities"],
        capacity: Float64[Tensor, "n entities kinds"],
        open: Bool[Tensor, "n tasks"] | None = None,
        free: Bool[Tensor, "n entities"] | None = None,
    ) -> Instances:
        """Instances without places; all tasks are open and all entities free unless it is said."""
        return cls(
            value,
            demand,
            cost,
            capacity,
            torch.ones_like(value, dtype=torch.bool) if open is None else open,
            torch.ones_like(cost, dtype=torch.bool) if free is None else free,
            value.new_zeros(*value.shape, 0),
            cost.new_zeros(*cost.shape, 0),
        )

    @classmethod
    def single(
        cls, tasks: Sequence[tuple[float, Sequence[float]]], entities: Sequence[tuple[float, Sequence[float]]]
    ) -> Instances:
        """One instance written by hand: ``(value, demands)`` of tasks and ``(cost, capacities)`` of entities."""

        def columns(rows: Sequence[tuple[float, Sequence[float]]]) -> tuple[Tensor, Tensor]:
            first = torch.tensor([[number for number, _ in rows]], dtype=torch.float64)
            return first, torch.tensor([[list(vector) for _, vector in rows]], dtype=torch.float64)

        return cls.of(*columns(tasks), *columns(entities))

    def __len__(self) -> int:
        return len(self.value)

    @property
    def tasks(self) -> int:
        """Of each instance."""
        return self.value.shape[1]

    @property
    def entities(self) -> int:
        """Of each instance."""
        return self.cost.shape[1]

    @property
    def task_vectors(self) -> Float64[Tensor, "n tasks attributes"]:
        """Value, demands and place."""
        return torch.cat([self.value.unsqueeze(-1), self.demand, self.task_place], -1)

    @property
    def entity_vectors(self) -> Float64[Tensor, "n entities attributes"]:
        """Cost, capacities and place."""
        return torch.cat([self.cost.unsqueeze(-1), self.capacity, self.entity_place], -1)

    def at(self, rows: Tensor) -> Instances:
        """These instances alone, by number or mask."""
        return Instances(**{name: column[rows] for name, column in vars(self).items()})

    def repeat(self, times: int) -> Instances:
        """All of them, one after another, so many times."""
        return self.at(torch.arange(len(self)).repeat(times))

    # ---- what an allocation is worth -------------------------------------------------------------------------------

    def members(self, allocation: Allocation) -> Bool[Tensor, "n tasks entities"]:
        """Whether an entity works on a task.

        Raises ``ValueError`` for an entity that is not free, and for a task there is not or that is closed.
        """
        if allocation.shape != self.cost.shape or (allocation.numel() and int(allocation.max()) >= self.tasks):
            raise ValueError(f"an allocation names one of {self.tasks} tasks for each of {self.entities} entities")
        works = allocation >= 0
        if bool((works & ~self.free).any()):
            raise ValueError("an entity that is not free cannot be allocated")
        if bool((works & ~self.open.gather(1, allocation.clamp(min=0))).any()):
            raise ValueError("a task that is not open takes no entities")
        return allocation.unsqueeze(1) == torch.arange(self.tasks).view(1, -1, 1)

    def covered(self, members: Bool[Tensor, "n tasks entities"]) -> Bool[Tensor, "n tasks"]:
        """Whether a task is open and all its demands are met."""
        there = torch.einsum("nte,nek->ntk", members.to(self.capacity.dtype), self.capacity)
        return self.open & ((self.demand - there) <= TOLERANCE).all(-1)

    def worth(self, allocation: Allocation) -> Float64[Tensor, "n tasks"]:
        """What every task brings: its value if it is covered, less the cost of its entities. 0 for a closed task."""
        members = self.members(allocation)
        paid = torch.einsum("nte,ne->nt", members.to(self.cost.dtype), self.cost)
        return torch.where(self.covered(members), self.value, 0.0) - paid

    def without_losses(self, allocation: Allocation) -> Allocation:
        """The allocation with every task cancelled that would bring nothing or less: its entities stay free."""
        kept = self.worth(allocation) > 0
        return torch.where(kept.gather(1, allocation.clamp(min=0)), allocation, NOBODY)

    def total(self, allocation: Allocation) -> Float64[Tensor, " n"]:
        """What all tasks bring once those that would lose are cancelled."""
        return self.worth(self.without_losses(allocation)).sum(-1)
