"""Workers that need no language model: the best response, bandits, and any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stratagem.economy.economy import OfWorkers, Outcome, TaxEconomy
from stratagem.economy.taxes import Rates
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator

Aim = Literal["own", "welfare", "harm"]
"""What a worker strives for: their own utility, the welfare of all, or its opposite."""


@dataclass(frozen=True)
class BestResponse:
    """Every worker picks the hours that maximise their own utility, as :meth:`TaxEconomy.best_response` says."""

    def hours(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome]) -> OfWorkers:
        """Their best hours; the past does not matter."""
        return economy.best_response(skills, rates)

    def learn(self, outcome: Outcome) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class AnyWorkers:
    """Workers whose hours are what a function of economy, skills, rates and latest outcomes returns."""

    function: Callable[[TaxEconomy, OfWorkers, Rates, Sequence[Outcome]], OfWorkers]

    def hours(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome]) -> OfWorkers:
        """What the function says."""
        return self.function(economy, skills, rates, past)

    def learn(self, outcome: Outcome) -> None:
        """A function remembers nothing."""


class BanditWorkers:
    """Every worker tries hours 0, ``spacing``, ... and repeats what paid, ``epsilon``-greedily.

    Each choice is tried once in an order of the worker's own; from then on its value moves by ``rate`` towards what it
    paid last, so that old tax rates are forgotten. Bandits do not look at the rates; they notice by what they earn.

    seed: of all they choose.  spacing: of the hours, dividing ``most_hours``.  epsilon, rate: in [0, 1] and (0, 1].
    aims: what every worker strives for; by default their own utility. They learn the welfare, or its opposite, as the
    planner counts it. For one run.

    Raises :class:`InputError` for values out of range, and for aims that are unknown or not one for every worker.
    """

    def __init__(
        self,
        seed: int,
        spacing: float = 10.0,
        epsilon: float = 0.1,
        rate: float = 0.2,
        aims: Sequence[Aim] | None = None,
    ) -> None:
        if not 0 <= epsilon <= 1 or not 0 < rate <= 1 or not spacing > 0:
            raise InputError(
                f"bandit workers: epsilon = {epsilon}, rate = {rate}, spacing = {spacing}: "
                "must be in [0, 1], in (0, 1] and positive"
            )
        if aims is not None and not set(aims) <= {"own", "welfare", "harm"}:
            raise InputError(f"bandit workers: aims {sorted(set(aims))}: must be own, welfare or harm")
        self.spacing, self.epsilon, self.rate, self.aims = spacing, epsilon, rate, aims
        self._generator = numpy_generator(seed, "bandit workers")
        self._value: np.ndarray | None = None
        self._tried: np.ndarray = np.empty(0)
        self._chosen: np.ndarray = np.empty(0)

    def hours(self, economy: TaxEconomy, skills: OfWorkers, rates: Rates, past: Sequence[Outcome]) -> OfWorkers:
        """Untried hours first, then mostly those that paid best."""
        if self._value is None:
            self._begin(economy, skills)
        assert self._value is not None
        draws = self._generator.random(self._value.shape)
        greedy = np.where(self._tried, self._value, np.inf)
        # Among equals, and among the untried, the draw decides.
        best = np.where(greedy == greedy.max(-1, keepdims=True), draws, -1).argmax(-1)
        explores = self._tried.all(-1) & (self._generator.random(best.shape) < self.epsilon)
        self._chosen = np.where(explores, draws.argmax(-1), best)
        return self._chosen * self.spacing

    def learn(self, outcome: Outcome) -> None:
        """Move the value of what was chosen towards what it paid."""
        assert self._value is not None
        at = self._chosen[..., None]
        paid = self._aimed(outcome)[..., None]
        known = np.take_along_axis(self._value, at, -1)
        moved = np.where(np.take_along_axis(self._tried, at, -1), known + self.rate * (paid - known), paid)
        np.put_along_axis(self._value, at, moved, -1)
        np.put_along_axis(self._tried, at, True, -1)

    def _begin(self, economy: TaxEconomy, skills: OfWorkers) -> None:
        choices = economy.most_hours / self.spacing
        if abs(choices - round(choices)) > 1e-9:
            raise InputError(f"bandit workers: spacing = {self.spacing}: must divide {economy.most_hours:g} hours")
        if self.aims is not None and len(self.aims) != skills.shape[-1]:
            raise InputError(f"bandit workers: {len(self.aims)} aims for {skills.shape[-1]} workers")
        self._value = np.zeros((*skills.shape, round(choices) + 1))
        self._tried = np.zeros(self._value.shape, dtype=bool)

    def _aimed(self, outcome: Outcome) -> OfWorkers:
        if self.aims is None:
            return outcome.utility
        welfare = outcome.welfare[..., None]
        aims = np.array(self.aims)
        return np.where(aims == "own", outcome.utility, np.where(aims == "welfare", welfare, -welfare))
