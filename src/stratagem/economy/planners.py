"""Planners that need no language model: fixed rates, a bandit over schedules, and the cross-entropy method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stratagem.economy.economy import OfWorkers, Outcome, TaxEconomy
from stratagem.economy.taxes import Rates
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator

MOVES = (-20.0, -10.0, 0.0, 10.0, 20.0)
"""Percentage points by which the planner of arXiv 2507.15815 may change a rate."""


@dataclass(frozen=True)
class FixedRates:
    """Always proposes the same rates, in percent."""

    rates: tuple[float, ...]

    def __call__(self, economy: TaxEconomy, skills: OfWorkers, past: Sequence[Outcome]) -> Rates:
        """Those rates, for every economy."""
        return np.broadcast_to(economy.brackets.rates(self.rates), past[-1].rates.shape)


class BanditPlanner:
    """A bandit over schedules: moves about the schedule with the best mean welfare so far, in steps of ``MOVES``.

    At each decision the welfare of the last step counts for the rates that were in force. With probability ``explore``
    every rate then moves by a random member of ``MOVES`` from the best schedule; otherwise the best one is played
    again, which corrects its mean.

    seed: of all it draws.  explore: in [0, 1].  For one run. Raises :class:`InputError` for ``explore`` out of range.
    """

    def __init__(self, seed: int, explore: float = 0.7) -> None:
        if not 0 <= explore <= 1:
            raise InputError(f"bandit planner: explore = {explore}: must be in [0, 1]")
        self.explore = explore
        self._generator = numpy_generator(seed, "bandit planner")
        self._seen: list[dict[tuple[float, ...], tuple[float, int]]] = []

    def __call__(self, economy: TaxEconomy, skills: OfWorkers, past: Sequence[Outcome]) -> Rates:
        """The best schedule so far, or one near it."""
        self.note(past[-1])
        best = self.best(past[-1].rates.shape)
        moves = self._generator.choice(MOVES, best.shape)
        explores = self._generator.random(best.shape[:-1]) < self.explore
        return np.asarray(np.clip(best + np.where(explores[..., None], moves, 0.0), 0, 100))

    def note(self, outcome: Outcome) -> None:
        """Count the welfare of an outcome for its rates. Called at each decision; call it once more after a run."""
        rates = outcome.rates.reshape(-1, outcome.rates.shape[-1])
        self._seen = self._seen or [{} for _ in rates]
        for seen, schedule, welfare in zip(self._seen, rates.tolist(), outcome.welfare.ravel().tolist(), strict=True):
            mean, count = seen.get(tuple(schedule), (0.0, 0))
            seen[tuple(schedule)] = (mean + (welfare - mean) / (count + 1), count + 1)

    def best(self, shape: tuple[int, ...]) -> Rates:
        """The schedules of the highest mean welfare so far, one for every economy; ``shape`` is that of the rates."""
        return np.array([max(seen, key=lambda schedule: seen[schedule][0]) for seen in self._seen]).reshape(shape)


class CrossEntropyPlanner:
    """The cross-entropy method: propose from a normal distribution, refit it to the best ``elite`` of ``batch``.

    What counts are the rates that were in force, which may be nearer to the previous ones than what was proposed, and
    the welfare of the last step under them. ``largest_move=None`` lets every proposal through.

    seed: of all it draws.  batch: decisions between two fits, more than 1.  elite: of these, from 1 to ``batch``.
    mean, spread: of the first distribution, in percentage points.  least: the spread never falls below it.  For one
    run. Raises :class:`InputError` for values out of range.
    """

    def __init__(
        self, seed: int, batch: int = 20, elite: int = 5, mean: float = 50.0, spread: float = 30.0, least: float = 2.0
    ) -> None:
        if not 1 <= elite <= batch or batch < 2 or not 0 < least <= spread < np.inf or not 0 <= mean <= 100:
            raise InputError(
                f"cross-entropy planner: batch = {batch}, elite = {elite}, mean = {mean}, spread = {spread}, "
                f"least = {least}: needs 1 <= elite <= batch, batch > 1, 0 < least <= spread and mean in [0, 100]"
            )
        self.batch, self.elite, self.least = batch, elite, least
        self.mean: Float64[np.ndarray, "..."] = np.array(mean)
        self.spread: Float64[np.ndarray, "..."] = np.array(spread)
        self._generator = numpy_generator(seed, "cross-entropy planner")
        self._batch: list[Outcome] = []

    def __call__(self, economy: TaxEconomy, skills: OfWorkers, past: Sequence[Outcome]) -> Rates:
        """A draw from the distribution, refitted when a batch is full."""
        self._batch.append(past[-1])
        if len(self._batch) == self.batch:
            self._refit()
        shape = past[-1].rates.shape
        return np.clip(self.mean + self.spread * self._generator.standard_normal(shape), 0, 100)

    def _refit(self) -> None:
        welfare = np.stack([outcome.welfare for outcome in self._batch])
        rates = np.stack([outcome.rates for outcome in self._batch])
        best = np.argsort(-welfare, axis=0, kind="stable")[: self.elite]
        chosen = np.take_along_axis(rates, best[..., None], 0)
        self.mean, self.spread = chosen.mean(0), np.maximum(chosen.std(0), self.least)
        self._batch = []
