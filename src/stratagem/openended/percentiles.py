"""Progress over tasks whose rewards do not compare: normalised scores, their percentiles, and dominance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from stratagem.errors import InputError

PERCENTILES = tuple(range(51))
"""Of a curve: the lower half, where a generally capable agent is told from one that excels at a few tasks."""

SELECTED = (10, 20, 50)
"""By which members of a population are compared."""


class ScoreBook:
    """What every agent earned on the same tasks. Raw values are kept, so that a better agent changes all scores.

    Of one player; for several there is :class:`~stratagem.openended.MetagameBook`.

    Raises :class:`InputError` for values of other tasks, below 0 or not finite.
    """

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.raw: dict[str, Float64[ndarray, " tasks"]] = {}

    def enter(self, agent: str, values: Float64[ndarray, " tasks"]) -> None:
        """Note what an agent earned, or note it anew."""
        values = np.asarray(values, np.float64)
        if values.shape != (self.tasks,) or not (np.isfinite(values) & (values >= 0)).all():
            raise InputError(f"scores of {agent}: needs {self.tasks} finite values of at least 0")
        self.raw[agent] = values

    @property
    def agents(self) -> list[str]:
        """Who has played, in the order of entry."""
        return list(self.raw)

    def earned(self, agent: str) -> Float64[ndarray, " tasks"]:
        """What it earned."""
        if agent not in self.raw:
            raise InputError(f"scores: nothing is known of {agent!r}; known: {', '.join(self.raw)}")
        return self.raw[agent]

    @property
    def best(self) -> Float64[ndarray, " tasks"]:
        """``V*``: the most that any agent earned on each task."""
        return np.asarray(np.max(list(self.raw.values()), axis=0))

    @property
    def kept(self) -> Bool[ndarray, " tasks"]:
        """Tasks on which somebody earned something; the others say nothing."""
        return np.asarray(self.best > 0)

    def normalized(self, agent: str) -> Float64[ndarray, " kept"]:
        """``V / V*`` on the tasks that are kept, in [0, 1]."""
        return normalized(self.earned(agent), self.best)

    def curve(self, agent: str) -> Float64[ndarray, " percentiles"]:
        """Its percentiles."""
        return percentiles(self.normalized(agent))


def normalized(values: Float64[ndarray, " tasks"], best: Float64[ndarray, " tasks"]) -> Float64[ndarray, " kept"]:
    """``values / best`` clipped to [0, 1], without the tasks whose best is 0."""
    kept = best > 0
    return np.asarray(np.clip(values[kept] / best[kept], 0.0, 1.0))


def percentiles(
    scores: Float64[ndarray, " tasks"], at: Sequence[int] = PERCENTILES
) -> Float64[ndarray, " percentiles"]:
    """Percentiles of the scores, each a score that was seen: the lower one between two.

    Raises :class:`InputError` for no scores.
    """
    if not len(scores):
        raise InputError("percentiles: no scores; on every task the best is 0")
    return np.asarray(np.percentile(scores, at, method="lower"))


def participation(scores: Float64[ndarray, " tasks"]) -> float:
    """Share of the tasks with a score above 0."""
    if not len(scores):
        raise InputError("participation: no scores; on every task the best is 0")
    return float(np.mean(np.asarray(scores) > 0))


def dominates(one: Float64[ndarray, " points"], other: Float64[ndarray, " points"]) -> bool:
    """Whether the first curve is nowhere below the second, and somewhere above."""
    one, other = np.asarray(one), np.asarray(other)
    return bool((one >= other).all() and (one > other).any())


def undominated(curves: Sequence[Float64[ndarray, " points"]]) -> list[int]:
    """Numbers of the curves that no other dominates; dominance is a partial order, so that there may be several."""
    return [number for number, curve in enumerate(curves) if not any(dominates(other, curve) for other in curves)]
