"""Allocation tasks by name: how instances are drawn, and what becomes of an allocation over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from torch import Tensor

from stratagem.allocation.instances import Instances
from stratagem.errors import InputError, unknown
from stratagem.seeding import generator
from stratagem.tasks.options import check_names
from stratagem.tasks.registry import parse
from stratagem.validation import validate_fields

Range = tuple[float, float]
"""Least and most of what is drawn evenly."""


@dataclass(frozen=True)
class AllocationTask:
    """How instances come about. Capacities and demands are whole numbers, each from its range; values and costs real.

    entities: of an instance.  slots: tasks that are offered at once.  kinds: of capacity.
    steps: of an episode; 1 is a single allocation, without a place or a later.
    backlog: tasks of an episode, that come to the slots one after another.  side: of the grid that tasks lie on and
    entities walk over, a cell a step.  diagonal: whether they also step to the four cells at the corners.
    scattered: whether entities start anywhere; at the centre otherwise.  placed: whether policies see places.
    consumed: whether entities are gone with the task they worked on.  refill: steps between looks at empty slots.
    patience: steps a task may wait, from then on its value falls by the factor ``decay`` each step.

    Raises :class:`InputError` for a value out of range.
    """

    name: str
    entities: Annotated[int, Ge(1), Le(1000)] = 16
    slots: Annotated[int, Ge(1), Le(100)] = 4
    kinds: Annotated[int, Ge(1), Le(10)] = 3
    steps: Annotated[int, Ge(1), Le(10_000)] = 1
    backlog: Annotated[int, Ge(1), Le(1000)] = 30
    side: Annotated[int, Ge(1), Le(1000)] = 7
    diagonal: bool = False
    scattered: bool = False
    placed: bool = False
    consumed: bool = False
    refill: Annotated[int, Ge(1)] = 5
    patience: Annotated[int, Ge(0)] = 10
    decay: Annotated[float, Gt(0), Le(1)] = 0.99
    value: Range = (2.0, 15.0)
    demand: Range = (16.0, 28.0)
    cost: Range = (0.1, 0.8)
    capacity: Range = (1.0, 10.0)

    def __post_init__(self) -> None:
        validate_fields(self, f"task allocation:{self.name}")
        for name in ("value", "demand", "cost", "capacity"):
            low, high = getattr(self, name)
            if not 0 <= low <= high < float("inf"):
                raise InputError(f"task allocation:{self.name}: {name}={low, high} must be 0 <= low <= high")

    @property
    def walked(self) -> bool:
        """Whether there is a later."""
        return self.steps > 1

    def entity_columns(
        self, count: int, source: torch.Generator
    ) -> tuple[Float64[Tensor, "count entities"], Float64[Tensor, "count entities kinds"]]:
        """Costs and capacities."""
        cost = _even(self.cost, (count, self.entities), source)
        return cost, _whole(self.capacity, (count, self.entities, self.kinds), source)

    def task_columns(
        self, count: int, tasks: int, source: torch.Generator
    ) -> tuple[Float64[Tensor, "count tasks"], Float64[Tensor, "count tasks kinds"]]:
        """Values and demands."""
        value = _even(self.value, (count, tasks), source)
        return value, _whole(self.demand, (count, tasks, self.kinds), source)

    def draw(self, count: int, seed: int, *path: int | str) -> Instances:
        """So many single allocations: all tasks open, all entities free, nobody anywhere.

        Raises :class:`InputError` for fewer than one.
        """
        if count < 1:
            raise InputError(f"task allocation:{self.name}: instances={count}: must be at least 1")
        source = generator(seed, "allocation", *path)
        return Instances.of(*self.task_columns(count, self.slots, source), *self.entity_columns(count, source))


def _even(bounds: Range, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=source, dtype=torch.float64)


def _whole(bounds: Range, shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    low, high = (round(bound) for bound in bounds)
    return torch.randint(low, high + 1, shape, generator=source).to(torch.float64)


Preset = Literal["static", "dynamic", "rbf", "material"]

PRESETS: Mapping[Preset, AllocationTask] = {
    "static": AllocationTask("static"),
    "dynamic": AllocationTask("dynamic", steps=50),
    "rbf": AllocationTask(
        "rbf", entities=60, slots=5, steps=100, demand=(10.0, 150.0), capacity=(1.0, 18.0), backlog=30
    ),
    "material": AllocationTask(
        "material",
        entities=100,
        slots=5,
        steps=150,
        backlog=30,
        side=100,
        diagonal=True,
        scattered=True,
        placed=True,
        consumed=True,
        patience=15,
        decay=1.0,
        value=(20.0, 150.0),
        demand=(10.0, 150.0),
        cost=(1.0, 14.0),
        capacity=(1.0, 24.0),
    ),
}
"""By name. ``rbf`` and ``material`` are after the environments released with arXiv 2407.00496.

There the same thirty tasks come in the same order in every episode, for learning and for evaluation, and larger tasks
are worth more; here everything is drawn evenly and anew from the ranges of those numbers. In the released ``rbf`` the
demands of a task that waits fall with its value, here its value alone does. The released ``material`` means to take 5 %
of a value a step after 15 steps, but takes it of a copy, so that values stay, as they do here: walks are so long that
with ``decay=0.95`` everybody loses. ``static`` and ``dynamic`` are small: four tasks, each for three to five of sixteen
entities, once or over fifty steps.
"""


def find_task(spec: str) -> AllocationTask:
    """The task ``allocation:NAME[,option=value...]``, one of ``PRESETS``.

    Raises :class:`InputError` for a name or option there is not, and for a value out of range.
    """
    kind, name, options = parse(spec)
    if kind != "allocation" or name is None:
        raise InputError(f"task {spec!r}: write allocation:NAME[,option=value...], NAME one of {', '.join(PRESETS)}")
    if name not in PRESETS:
        raise unknown("allocation task", name, PRESETS)
    single = [one.name for one in fields(AllocationTask) if one.name != "name" and one.type != "Range"]
    check_names(f"allocation:{name}", options, single)
    changed: dict[str, Any] = dict(options)
    return replace(PRESETS[name], **changed)  # type: ignore[index]  # strings are converted by validate_fields
