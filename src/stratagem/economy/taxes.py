"""Taxes that are piecewise linear in income, and the rates the formula of Saez would set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from stratagem.errors import InputError

Rates = Float64[np.ndarray, "*#batch brackets"]
"""Marginal rates in percent."""


@dataclass(frozen=True)
class Brackets:
    """Incomes at which the marginal rate changes, from 0 up, in dollars per year; the last bracket has no end.

    An income on a threshold belongs to the bracket below it, which makes no difference to the tax.
    Raises :class:`InputError` for thresholds that do not begin at 0 or do not rise.
    """

    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not self.thresholds or self.thresholds[0] != 0 or not rising or not np.isfinite(self.thresholds[-1]):
            raise InputError(f"brackets {self.thresholds}: thresholds must begin at 0 and rise, all finite")

    def __len__(self) -> int:
        return len(self.thresholds)

    @property
    def starts(self) -> Float64[np.ndarray, " brackets"]:
        """Where every bracket begins."""
        return np.array(self.thresholds, dtype=np.float64)

    @property
    def ends(self) -> Float64[np.ndarray, " brackets"]:
        """Where every bracket ends; the last one at infinity."""
        return np.append(self.starts[1:], np.inf)

    def rates(self, rates: ArrayLike) -> Rates:
        """Rates as an array, checked: one for every bracket, in percent.

        Raises :class:`InputError` for another number of them, one outside [0, 100], and one between 0 and 1, which was
        meant as a fraction. (The released code multiplies such a change of a rate by 100.)
        """
        checked = np.asarray(rates, dtype=np.float64)
        if not checked.ndim or checked.shape[-1] != len(self):
            raise InputError(f"tax rates of shape {checked.shape}: must be {len(self)}, one for every bracket")
        wrong = checked[~((checked == 0) | ((checked >= 1) & (checked <= 100)))]
        if wrong.size:
            raise InputError(f"tax rate {wrong[0]:g}: must be in percent, 0 or from 1 to 100; 0.5 is not read as 50 %")
        return checked

    def tax(self, income: Float64[np.ndarray, "*#batch workers"], rates: ArrayLike) -> Float64[np.ndarray, "..."]:
        """``T(z) = sum_j rate_j / 100 (min(z, end_j) - start_j)^+``, rates broadcast over workers.

        Raises :class:`InputError` as :meth:`rates` does, and for an income that is negative or not finite.
        """
        if not np.all((income >= 0) & (income < np.inf)):
            raise InputError("income: must be at least 0 and finite")
        inside = np.clip(np.asarray(income)[..., None], self.starts, self.ends) - self.starts
        return np.asarray((inside * (self.rates(rates) / 100)[..., None, :]).sum(-1))


FLAT = Brackets((0,))
THREE = Brackets((0, 90_000, 159_100))
US_FEDERAL = Brackets((0, 11_600, 47_150, 100_525, 191_950, 243_725, 609_350))
"""Of the federal income tax of the United States in 2024, single filers."""

US_FEDERAL_RATES = (10.0, 12.0, 22.0, 24.0, 32.0, 35.0, 37.0)

SAEZ_THREE = (0.18, 0.11, 0.57)
"""Elasticities by which the released code computes Saez's rates for the three brackets."""


def saez_rates(
    incomes: Float64[np.ndarray, " workers"],
    brackets: Brackets,
    elasticity: float | Sequence[float] = 0.4,
    top: Literal["tenth", "mean"] = "tenth",
) -> Float64[np.ndarray, " brackets"]:
    """Rates by the formula of Saez: ``100 (1 - G) / (1 - G + a e)``, one for every bracket, in percent.

    Evaluated at ``z``, the middle of a bracket. ``a = z f(z) / (1 - F(z))``, ``F`` the share of incomes of at most
    ``z``, ``f`` their Gaussian kernel density (bandwidth of Scott); in the last bracket ``a = m / (m - start)``, ``m``
    the mean of the incomes from ``z`` up. ``G`` is the mean weight of these incomes, the weights being inverse incomes
    scaled to a mean of 1. Where nobody earns more than ``z``, ``G = 0`` and ``a = 10``; where ``G >= 1`` the rate is 0.
    Rates are clipped to [0, 100] and rounded to two places; one between 0 and 1 becomes 1, to be told from a fraction.
    The formula is read from the released code of arXiv 2507.15815; the paper's own text was not available.

    incomes: of the workers, in dollars per year.
    elasticity: of income by what is left of a dollar (``1 - rate``), one for all brackets or one each, positive.
    top: in the last bracket ``z`` is its start and a ``tenth`` more, or the ``mean`` of the incomes in it (half as
    much again as its start when there are none), as in later releases. The two need the last bracket to start above 0;
    with a single bracket ``z`` is the mean income and ``a`` is taken from the density.

    Raises :class:`InputError` for fewer than two different incomes and elasticities that do not fit.
    """
    incomes = np.asarray(incomes, dtype=np.float64)
    if incomes.ndim != 1 or len(np.unique(incomes)) < 2 or not np.all((incomes >= 0) & (incomes < np.inf)):
        raise InputError("saez: needs incomes of at least two different amounts, none negative, all finite")
    elasticities = np.broadcast_to(np.asarray(elasticity, dtype=np.float64), np.shape(elasticity) or (len(brackets),))
    if elasticities.shape != (len(brackets),) or not np.all((elasticities > 0) & np.isfinite(elasticities)):
        raise InputError(f"saez: elasticity = {elasticity}: must be positive, one or {len(brackets)}")
    at = _evaluated_at(incomes, brackets, top)
    weight = 1 / np.maximum(incomes, 1e-10)
    from_here_up = incomes >= at[:, None]
    beyond = (incomes > at[:, None]).mean(1)
    anybody = beyond > 0
    share = np.where(anybody, (from_here_up * weight / weight.sum()).sum(1) / np.where(anybody, beyond, 1), 0.0)
    tail = np.where(anybody, at * _density(incomes, at) / np.where(anybody, beyond, 1), 10.0)
    start = brackets.starts[-1]
    if start > 0 and from_here_up[-1].any():
        mean = incomes[from_here_up[-1]].mean()
        tail[-1] = mean / (mean - start)
    gain = np.maximum(1 - share, 0)
    rates = np.round(100 * gain / np.where(gain > 0, gain + tail * elasticities, 1), 2)
    return np.where((rates > 0) & (rates < 1), 1.0, rates)


def _evaluated_at(incomes: Float64[np.ndarray, " workers"], brackets: Brackets, top: str) -> np.ndarray:
    starts, ends = brackets.starts, brackets.ends
    at = (starts + np.append(ends[:-1], starts[-1])) / 2
    reached = incomes[incomes >= starts[-1]]
    if len(brackets) == 1:
        at[-1] = incomes.mean()
    elif top == "tenth":
        at[-1] = 1.1 * starts[-1]
    else:
        at[-1] = reached.mean() if reached.size else 1.5 * starts[-1]
    return np.asarray(at)


def _density(incomes: Float64[np.ndarray, " workers"], at: Float64[np.ndarray, " points"]) -> np.ndarray:
    """Gaussian kernel density estimate with Scott's bandwidth, ``n^(-1/5)`` standard deviations."""
    width = incomes.std(ddof=1) * len(incomes) ** -0.2
    if width == 0:  # Incomes that differ by less than a float64 can tell in their deviation: a spike, next to no point.
        return np.zeros(len(at))
    kernel = np.exp(-0.5 * ((at[:, None] - incomes) / width) ** 2)
    return np.asarray(kernel.mean(1) / (width * np.sqrt(2 * np.pi)))
