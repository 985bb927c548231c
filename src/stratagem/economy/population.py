"""Who works: skills drawn from the income distribution of the United States, or uniformly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stratagem.errors import InputError
from stratagem.seeding import numpy_generator

FULL_TIME = 40.0
"""Weekly hours at which a worker earns the yearly income that was drawn for them."""

WEEKS = 52.0
"""Weeks of a year: a wage in dollars per hour is ``WEEKS`` times as much in dollars per year for one weekly hour."""


@dataclass(frozen=True)
class GB2:
    """Generalised beta distribution of the second kind: ``mu (B / (1 - B))^(1 / sigma)``, ``B ~ Beta(nu, tau)``.

    mu: scale, in dollars per year.  sigma, nu, tau: shapes. All must be positive.

    The defaults are those of arXiv 2507.15815 (released code), fitted to incomes of the American Community Survey 2023.
    """

    mu: float = 72402.78177917618
    sigma: float = 2.0721070746154746
    nu: float = 0.48651871959386955
    tau: float = 1.1410398548220329

    def __post_init__(self) -> None:
        for name in ("mu", "sigma", "nu", "tau"):
            if not 0 < getattr(self, name) < np.inf:
                raise InputError(f"GB2.{name} = {getattr(self, name)}: must be positive and finite")

    def quantile(self, p: Float64[np.ndarray, "*n"] | float) -> Float64[np.ndarray, "*n"]:
        """``mu ((nu / tau) F^-1(p; 2 nu, 2 tau))^(1 / sigma)``, ``F`` that of Fisher and Snedecor.

        Raises :class:`InputError` for a ``p`` that is not strictly between 0 and 1.
        """
        from scipy.special import betaincinv  # brings in scipy, for which no listing should wait

        p = np.asarray(p, dtype=np.float64)
        if not np.all((p > 0) & (p < 1)):
            raise InputError("GB2.quantile: p must be strictly between 0 and 1")
        # The quantile of F is (tau / nu) b / (1 - b), b that of the beta distribution.
        share = betaincinv(self.nu, self.tau, p)
        return np.asarray(self.mu * (share / (1 - share)) ** (1 / self.sigma))

    def sample(self, shape: int | tuple[int, ...], generator: np.random.Generator) -> Float64[np.ndarray, "..."]:
        """Incomes, as the ratio of two gamma variables."""
        ratio = generator.standard_gamma(self.nu, shape) / generator.standard_gamma(self.tau, shape)
        return np.asarray(self.mu * ratio ** (1 / self.sigma))


def us_income_skills(workers: int, seed: int) -> Float64[np.ndarray, " workers"]:
    """Skills of workers who earn an American income in ``FULL_TIME`` hours a week: ``income / 40``.

    A skill is in dollars per year for one weekly hour. Raises :class:`InputError` for fewer than one worker.
    """
    return GB2().sample(_count(workers), numpy_generator(seed, "skills")) / FULL_TIME


def uniform_skills(workers: int, seed: int, low: float = 1.24, high: float = 159.1) -> Float64[np.ndarray, " workers"]:
    """Skills uniform between ``low`` and ``high``, by default those of the released code.

    The defaults are plausible as dollars per hour; the released code multiplies them by weekly hours as they are, so
    that the largest income is 15,910, below nearly all of its thresholds. For yearly dollars multiply by ``WEEKS``.
    Raises :class:`InputError` for fewer than one worker and bounds that are not ``0 <= low < high``.
    """
    if not 0 <= low < high < np.inf:
        raise InputError(f"uniform skills: low = {low}, high = {high}: must be 0 <= low < high, finite")
    return numpy_generator(seed, "skills").uniform(low, high, _count(workers))


def _count(workers: int) -> int:
    if workers < 1:
        raise InputError(f"workers = {workers}: must be at least 1")
    return workers
