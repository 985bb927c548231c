"""Knobs that move with the step, once or over and over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any

from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.parts import Schedule


@dataclass(frozen=True)
class LinearRamp(Schedule):
    """``knob = start + (end - start) * clip(every * ceil((step - begin) / every) / steps, 0, 1)``.

    knob: dotted path into the recipe, such as ``optimization.learning_rate``.  begin, steps: in batches, from 0.
    every: batches for which the knob stays as it is: 1 is a straight line, more are stairs.
    """

    knob: str
    start: float
    end: float
    steps: Annotated[int, Ge(1)]
    begin: Annotated[int, Ge(0)] = 0
    every: Annotated[int, Ge(1)] = 1

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        gone = self.every * -((self.begin - step) // self.every)
        share = min(max(gone / self.steps, 0.0), 1.0)
        return {self.knob: self.start + (self.end - self.start) * share}


@dataclass(frozen=True)
class Switch(Schedule):
    """``knob = value`` from step ``at`` on: the beginning of another phase.

    knob: dotted path into the recipe.  value: a number, the name of a part (with its default fields), or None for
    none.  at: in batches, from 0.
    """

    knob: str
    value: float | int | str | None
    at: Annotated[int, Ge(0)]

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        return {self.knob: self.value} if step >= self.at else {}


@dataclass(frozen=True)
class Cycle(Schedule):
    """``knob`` takes each of ``values`` for so many batches, over and over: phases that alternate.

    knob: dotted path into the recipe.  values: each a number, the name of a part (with its default fields), or None
    for none.  batches: of each value, at least 1.

    Raises :class:`InputError` when there is not one number of batches for each value.
    """

    knob: str
    values: tuple[float | int | str | None, ...]
    batches: tuple[Annotated[int, Ge(1)], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.values or len(self.values) != len(self.batches):
            raise InputError(f"cycle.batches = {self.batches}: must be one number for each of values = {self.values}")

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        place = step % sum(self.batches)
        phase = sum(place >= end for end in accumulate(self.batches))
        return {self.knob: self.values[phase]}
