"""Knobs that move with the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

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
