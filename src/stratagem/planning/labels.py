"""What the steps of a path are to be scored at, from the values a search gave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from stratagem.part import Part


@dataclass(frozen=True)
class StepLabels(Part):
    """Labels in [0, 1] for the steps of a path."""

    kind: ClassVar[str] = "step_labels"

    def __call__(self, values: Sequence[float]) -> list[float]:
        """Of values in [0, 1], one for each step in order, a label for each."""
        raise NotImplementedError


@dataclass(frozen=True)
class SoftLabels(StepLabels):
    """Values with rises pushed up and drops pushed down: ``l_i = v_i - look_back * (l_{i-1} - v_i)`` from ``i = 2`` on.

    Steps are counted from 0 and taken in order, so the step before is already a label; the last one is left as it is.
    With ``sides = "both"`` a step below both its neighbours, a dip that recovers, is held against the one after it
    instead: ``l_i = v_i - look_back * (l_{i-1} - v_{i+1})`` (arXiv 2501.12051, soft dual-sided process supervision).
    What leaves [0, 1] is clipped, which is a reconstruction; the next step sees the label before it is clipped.

    look_back: at least 0; 0: the values themselves.
    """

    look_back: Annotated[float, Ge(0)] = 0.5
    sides: Literal["one", "both"] = "both"

    def __call__(self, values: Sequence[float]) -> list[float]:
        labels = list(values)
        for i in range(2, len(values) - 1):
            before, own, after = labels[i - 1], values[i], values[i + 1]
            dips = self.sides == "both" and own < before and own < after
            labels[i] = own - self.look_back * (before - (after if dips else own))
        return [min(max(label, 0.0), 1.0) for label in labels]


@dataclass(frozen=True)
class HardLabels(StepLabels):
    """1 where the value is at least ``threshold``, else 0; with ``rising``, 0 also where it is below the one before."""

    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    rising: bool = False

    def __call__(self, values: Sequence[float]) -> list[float]:
        before = [values[0], *values[:-1]] if values else []
        return [
            float(value >= self.threshold and not (self.rising and value < last))
            for value, last in zip(values, before, strict=True)
        ]
