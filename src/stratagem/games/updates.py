"""What variants of counterfactual regret minimization are made of: discounts, predictions and averages, by formula.

A part has two halves. ``factors`` says in numpy what it needs at each iteration (``t = 1, 2, ...``), one row for each.
A static method says in plain Python, on single numbers and such a row, what it does in one information set; it is
compiled by numba into the sweep over the game, so it may use arithmetic, ``min``, ``max`` and branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from numpy import ndarray

from stratagem.part import Part

Row = Float64[ndarray, " factors"]
Times = Float64[ndarray, " iterations"]
Rows = Float64[ndarray, "iterations factors"]


# ---- volatility -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Volatility(Part):
    """How much an information set's instantaneous regrets ``r`` move: ``v = min(1, ewma / scale)``, between 0 and 1.

    ``ewma <- rate m + (1 - rate) ewma`` with ``m = max_a |r(a)|``; at the first iteration it is ``m``.

    rate: of the mean.  scale: what counts as fully volatile, in units of utility.
    shared: one mean for all information sets of both players, in the order they are visited (deepest first), or one
    for each. The shared one depends on that order, and leaks the volatility of one state into its neighbours.
    """

    kind: ClassVar[str] = "volatility"
    rate: Annotated[float, Gt(0), Le(1)] = 0.1
    scale: Annotated[float, Gt(0)] = 2.0
    shared: bool = True


# ---- discounts ------------------------------------------------------------------------------------------------------


class Discount(Part):
    """What share of an accumulated regret is kept."""

    kind: ClassVar[str] = "discount"

    def factors(self, t: Times) -> Rows:
        """What :meth:`kept` reads at iterations ``t``."""
        raise NotImplementedError

    @staticmethod
    def kept(regret: float, volatility: float, row: Row) -> float:
        """Factor of ``regret`` in an information set of this volatility."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoDiscount(Discount):
    """All of it: ``d = 1``."""

    def factors(self, t: Times) -> Rows:
        """Nothing."""
        return np.zeros((len(t), 1))

    @staticmethod
    def kept(regret: float, volatility: float, row: Row) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class PowerDiscount(Discount):
    """``d = s^alpha / (s^alpha + 1)`` for regrets of at least 0, ``s^beta / (s^beta + 1)`` below; ``s = t - lag``.

    Brown and Sandholm, arXiv 1809.04040: discounting at the end of iteration ``t - 1`` is what ``lag`` of 1 does at the
    beginning of iteration ``t``. ``s`` is at least 1; before the first iteration regrets are 0 and nothing is kept.
    """

    alpha: float = 1.5
    beta: float = 0.0
    lag: Annotated[int, Ge(0), Le(1)] = 1

    def factors(self, t: Times) -> Rows:
        """Both factors."""
        s = np.maximum(t - self.lag, 1.0)
        return np.stack([1 / (1 + s**-self.alpha), 1 / (1 + s**-self.beta)], -1)

    @staticmethod
    def kept(regret: float, volatility: float, row: Row) -> float:
        """By the sign of the regret."""
        return float(row[0] if regret >= 0.0 else row[1])


@dataclass(frozen=True)
class VolatileDiscount(Discount):
    """``d = t^p / (t^p + 1)`` with exponents that fall with volatility ``v``.

    ``alpha = max(least, alpha - fall v)`` for regrets of at least 0, ``min(alpha, beta - fall v)`` below (arXiv
    2602.16928, appendix). With a negative ``beta`` less than half of a negative regret is kept, less from time to time.
    """

    alpha: float = 1.5
    beta: float = -0.1
    fall: Annotated[float, Ge(0)] = 0.5
    least: float = 0.1

    def factors(self, t: Times) -> Rows:
        """Iteration and exponents."""
        return np.stack([t, *(np.full(len(t), one) for one in (self.alpha, self.beta, self.fall, self.least))], -1)

    @staticmethod
    def kept(regret: float, volatility: float, row: Row) -> float:
        """By the sign of the regret."""
        power = max(row[4], row[1] - row[3] * volatility)
        if regret < 0.0:
            power = min(power, row[2] - row[3] * volatility)
        return float(1.0 / (1.0 + row[0] ** -power))


# ---- optimism -------------------------------------------------------------------------------------------------------


class Optimism(Part):
    """How much of the last instantaneous regrets is expected to come again."""

    kind: ClassVar[str] = "optimism"

    def factors(self, t: Times) -> Rows:
        """What :meth:`amount` reads at iterations ``t``."""
        raise NotImplementedError

    @staticmethod
    def amount(volatility: float, row: Row) -> float:
        """Weight of the prediction in an information set of this volatility."""
        raise NotImplementedError


@dataclass(frozen=True)
class ConstantOptimism(Optimism):
    """``o``: 0 predicts nothing, 1 that the last instantaneous regrets come again."""

    weight: Annotated[float, Ge(0)] = 1.0

    def factors(self, t: Times) -> Rows:
        """The weight."""
        return np.full((len(t), 1), self.weight)

    @staticmethod
    def amount(volatility: float, row: Row) -> float:
        """The weight."""
        return float(row[0])


@dataclass(frozen=True)
class FadingOptimism(Optimism):
    """``o = max(0, 1 - fall v) / (1 + (t - 1) / horizon)``: less with time and with volatility (arXiv 2602.16928)."""

    horizon: Annotated[float, Gt(0)] = 100.0
    fall: Annotated[float, Ge(0)] = 0.5

    def factors(self, t: Times) -> Rows:
        """What time leaves, and how volatility tells."""
        return np.stack([1 / (1 + (t - 1) / self.horizon), np.full(len(t), self.fall)], -1)

    @staticmethod
    def amount(volatility: float, row: Row) -> float:
        """By volatility."""
        return float(row[0] * max(0.0, 1.0 - row[1] * volatility))


# ---- the three steps in an information set --------------------------------------------------------------------------


@dataclass(frozen=True)
class Regrets(Part):
    """How regrets add up: ``R <- max(floor, d(R) R + b(r))``, with ``b(r) = boost r`` for ``r > 0`` and ``r`` below.

    Without discount and boost these are CFR's; a floor of 0 makes them regret matching plus's.
    """

    kind: ClassVar[str] = "regrets"
    discount: Discount = NoDiscount()
    floor: Annotated[float, Le(0)] = -np.inf
    boost: Annotated[float, Gt(0)] = 1.0
    volatility: Volatility | None = None


@dataclass(frozen=True)
class Matching(Part):
    """Regret matching: actions in proportion to ``max(0, d(R) R + o b(r))^exponent``, uniform where all are 0.

    ``R`` already has ``r`` in it. ``b`` boosts as in :class:`Regrets`. Without optimism it is plain regret matching.
    """

    kind: ClassVar[str] = "matching"
    discount: Discount = NoDiscount()
    optimism: Optimism = ConstantOptimism(0.0)
    boost: Annotated[float, Gt(0)] = 1.0
    exponent: Annotated[float, Gt(0)] = 1.0
    volatility: Volatility | None = None


class Averaging(Part):
    """The average strategy: ``S <- S + w * own reach * strategy``, and ``S`` in proportion.

    warm_up: iterations at the beginning that do not count. Until they are over there is no average.
    """

    kind: ClassVar[str] = "averaging"
    warm_up: int

    def factors(self, t: Times) -> Rows:
        """What :meth:`weight` reads at iterations ``t``."""
        raise NotImplementedError

    @staticmethod
    def weight(magnitude: float, row: Row) -> float:
        """Weight of an iteration in an information set with ``magnitude = max_a |r(a)|``; at least 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class PolynomialAverage(Averaging):
    """``w = t^power``: 0 uniform, 1 linear, 2 quadratic."""

    power: Annotated[float, Ge(0)] = 0.0
    warm_up: Annotated[int, Ge(0)] = 0

    def factors(self, t: Times) -> Rows:
        """The weight."""
        return np.where(t > self.warm_up, t**self.power, 0.0)[:, None]

    @staticmethod
    def weight(magnitude: float, row: Row) -> float:
        """The same everywhere."""
        return float(row[0])


@dataclass(frozen=True)
class MagnitudeAverage(Averaging):
    """``w = t^g max(least, sqrt(1 + m / 2)) / (1 + m^1.5)`` with ``g = min(most, power + gain min(1, m / 2))``.

    ``m = max_a |r(a)|`` at this iteration: volatile sets lean on late iterations, and large regrets count little
    (arXiv 2602.16928, appendix).
    """

    power: Annotated[float, Ge(0)] = 2.0
    gain: Annotated[float, Ge(0)] = 1.5
    most: Annotated[float, Ge(0)] = 4.0
    least: Annotated[float, Ge(0)] = 0.1
    warm_up: Annotated[int, Ge(0)] = 500

    def factors(self, t: Times) -> Rows:
        """Iteration, 0 while it does not count, and the numbers above."""
        counted = np.where(t > self.warm_up, t, 0.0)
        return np.stack(
            [counted, *(np.full(len(t), one) for one in (self.power, self.gain, self.most, self.least))], -1
        )

    @staticmethod
    def weight(magnitude: float, row: Row) -> float:
        """By this iteration's regrets."""
        if row[0] == 0.0:
            return 0.0
        power = min(row[3], row[1] + row[2] * min(1.0, magnitude / 2.0))
        stable = max(row[4], (1.0 + magnitude / 2.0) ** 0.5)
        return float(row[0] ** power * stable / (1.0 + magnitude**1.5))
