"""Boltzmann exploration whose temperature falls, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.validation import validate_fields

COLDEST = 1e-6
"""Temperatures below this act as this."""


def boltzmann(
    values: Float[Tensor, "*batch actions"], temperature: float | Float[Tensor, "*#batch"]
) -> Float[Tensor, "*batch actions"]:
    """Probabilities ``exp(values / temperature) / sum``; equal values have equal ones, however cold it is.

    A temperature below ``COLDEST`` acts as that.
    """
    above = values - values.amax(-1, keepdim=True)
    if isinstance(temperature, Tensor):
        return (above / temperature.clamp(min=COLDEST)[..., None]).softmax(-1)
    return (above / max(temperature, COLDEST)).softmax(-1)


@dataclass(frozen=True)
class Annealing:
    """A temperature that falls in a line from ``start``, in the first step, to ``end``, after the last of ``steps``.

    Raises :class:`InputError` for negative temperatures and for no steps.
    """

    start: Annotated[float, Ge(0)] = 0.727
    end: Annotated[float, Ge(0)] = 0.1
    steps: Annotated[int, Ge(1)] = 95_000

    def __post_init__(self) -> None:
        validate_fields(self, "annealing")

    def temperatures(self) -> Float64[np.ndarray, " steps"]:
        """Of every step."""
        return self.start + (self.end - self.start) * np.arange(self.steps) / self.steps

    @property
    def index(self) -> float:
        """The exploration index of these temperatures, ``(3 start + end) / 4`` for many steps."""
        return exploration_index(self.temperatures())


def exploration_index(temperatures: Float64[np.ndarray, " steps"]) -> float:
    """``B``: the mean temperature over the first half of a schedule of any shape (arXiv 2601.05509)."""
    return float(np.mean(temperatures[: max(1, len(temperatures) // 2)]))
