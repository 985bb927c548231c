"""What a game looks like at one moment: agents, what they want, and what is in the way, on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped


@dataclass(frozen=True)
class Sketch:
    """A plane of ``width`` by ``height``, x to the right and y down, with discs on it.

    place: the agents' centres.  goal: where each wants to be; None where agents have no such place.
    radius: of the agents.  walls: lower corners of unit squares.  discs: x, y and radius of round obstacles.
    """

    width: float
    height: float
    place: Float[np.ndarray, "agents 2"]
    goal: Float[np.ndarray, "agents 2"] | None = None
    radius: float = 0.4
    walls: Shaped[np.ndarray, "walls 2"] = field(default_factory=lambda: np.zeros((0, 2)))
    discs: Float[np.ndarray, "discs 3"] = field(default_factory=lambda: np.zeros((0, 3)))


@runtime_checkable
class Drawable(Protocol):
    """Copies of a game that can be drawn."""

    def sketch(self, copy: int) -> Sketch:
        """What this copy looks like now. Raises :class:`InputError` for a game that has no such picture."""
        ...


@dataclass(frozen=True)
class Trajectory:
    """An episode as it is drawn: a sketch before every turn and after the last, and what each turn paid each agent."""

    sketches: Sequence[Sketch]
    reward: Float[np.ndarray, "turns agents"]
