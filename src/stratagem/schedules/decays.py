"""Knobs that decay, once or over and over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, exp, pi
from typing import Annotated, Any

from annotated_types import Ge

from stratagem.errors import InputError
from stratagem.parts import Schedule


@dataclass(frozen=True)
class PhasedDecay(Schedule):
    """``knob = scale beta(step)``: a slow exponential decay, and a fast one from half-way on (EPO, arXiv 2509.22576).

    With ``u`` the share of a phase that is over, from 0 to 1: in the first, ``beta = level + (1 - level) exp(-slow
    u)``; in the second, ``beta = level exp(-fast u)``. The first does not reach ``level``, so at the default values
    ``beta`` falls from 1 to 0.827, drops to below 0.8 with the next batch, and ends at 0.040.

    knob: dotted path into the recipe.  batches: of both phases; the first has half of them, rounded down. Later steps
    keep the last value.  scale: of the knob.  level: in [0, 1].  slow, fast: rates of the phases.
    """

    knob: str
    batches: Annotated[int, Ge(1)]
    scale: float = 1.0
    level: Annotated[float, Ge(0)] = 0.8
    slow: Annotated[float, Ge(0)] = 2.0
    fast: Annotated[float, Ge(0)] = 3.0

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        half, step = self.batches // 2, min(max(step, 0), self.batches)
        if step <= half:
            decay = self.level + (1 - self.level) * exp(-self.slow * step / max(half, 1))
        else:
            decay = self.level * exp(-self.fast * (step - half) / (self.batches - half))
        return {self.knob: self.scale * decay}


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """``knob = low + (high - low) (1 + cos(pi k / n)) / 2`` in batch ``k`` of each cycle of ``n``, after a warm-up.

    In the warm-up the knob moves along a line from ``initial`` to ``high``; every cycle begins at ``high`` and ends
    next to ``low``, which may be the greater of the two. ``n = floor((batches - warmup) / cycles)``; later batches keep
    the last value. The defaults are those of CANON's released code (arXiv 2509.23962).

    knob: dotted path into the recipe.  batches: of warm-up and cycles together.  warmup: 0 for none.

    Raises :class:`InputError` when a cycle would be shorter than one batch.
    """

    knob: str
    high: float
    low: float = 0.0
    initial: float = 0.0
    batches: Annotated[int, Ge(1)] = 150
    warmup: Annotated[int, Ge(0)] = 30
    cycles: Annotated[int, Ge(1)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batches - self.warmup < self.cycles:
            raise InputError(
                f"{self.part_name()}.batches = {self.batches}: must be at least warmup + cycles = "
                f"{self.warmup + self.cycles}"
            )

    def __call__(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        if step < self.warmup:
            return {self.knob: self.initial + (self.high - self.initial) * step / self.warmup}
        length = (self.batches - self.warmup) // self.cycles
        place = min(step - self.warmup, self.cycles * length - 1) % length
        return {self.knob: self.low + (self.high - self.low) * (1 + cos(pi * place / length)) / 2}
