"""What scores over seeds say, by scipy, and what a single learning curve comes to; it knows neither runs nor files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from stratagem.estimate import Estimate
from stratagem.study.comparison import Verdict

SIGNIFICANCE = 0.05
"""What the adjusted p of a difference must be below."""

CONFIDENCE = 0.95
"""Of every interval."""

RESAMPLES = 2000
"""Bootstrap resamples of an interval."""


# ---- scores over seeds ----------------------------------------------------------------------------------------------


def interquartile_mean(
    scores: Float[np.ndarray, "strata seeds"], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of all scores together without the lowest and the highest quarter, with its 95 % interval.

    A quarter is rounded down: of five scores the middle three count, of three or fewer all do. The interval is the
    stratified percentile bootstrap of Agarwal et al. (arXiv 2108.13264): seeds are resampled within each stratum (a
    task). ``scores``: [strata, seeds] with at least two seeds.

    A percentile interval is too narrow for few seeds: that of normal differences around zero leaves out zero about 50
    times in 100 with two seeds, 25 with three, 10 with five and 7 with ten, instead of 5. So it shows how far the
    scores spread, and :func:`verdict` does not rest on it alone.
    """
    return Estimate(*map(float, _bootstrap(_interquartile_mean, tuple(scores), rng, resamples)))


def interquartile_band(
    curves: Float[np.ndarray, "*points seeds"], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    """:func:`interquartile_mean` of one stratum at every point of a curve: value, low, high, each [points].

    A resample takes whole curves, the same seeds at all points.
    """
    return _bootstrap(_interquartile_mean, (curves,), rng, resamples)


def probability_of_improvement(
    arm: Float[np.ndarray, "strata seeds"],
    reference: Float[np.ndarray, "strata seeds"],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Estimate:
    """That a run of the arm scores higher than one of the reference on the same task, with its 95 % interval.

    ``mean over strata of U / seeds^2`` with Mann and Whitney's U, so ties count half: 0 to 1, and 0.5 when neither is
    ahead. Every run of the arm meets every run of the reference. Interval as in :func:`interquartile_mean`, the seeds
    of the two resampled apart (arXiv 2108.13264, section 4.3).
    """

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        x, y = np.stack(samples[: len(arm)]), np.stack(samples[len(arm) :])
        u = stats.mannwhitneyu(x, y, axis=axis, method="asymptotic").statistic
        share: np.ndarray = u.mean(axis=0) / (x.shape[axis] * y.shape[axis])
        return share

    return Estimate(*map(float, _bootstrap(statistic, (*arm, *reference), rng, resamples)))


def paired_p(differences: Float[np.ndarray, "strata seeds"], resolution: float = 0.0) -> float:
    """Two-sided p of Student's paired test that the differences between runs of equal seed average zero.

    Differences are averaged over strata first, which leaves one number d per seed, then
    ``p = 2 P(T > |mean d| / (s / sqrt(seeds)))`` with ``seeds - 1`` degrees of freedom. Student's test, since with so
    few seeds it keeps its level where a bootstrap does not, and since a test by exchanging signs cannot go below
    ``2 / 2^seeds``: 0.06 with five.

    resolution: step of the scores, such as 1 / episodes for a share of episodes; 0 for none. Scores of that step can
    give equal differences by chance (with two seeds, often), whose deviation s = 0 would make any difference certain.
    So s is at least ``resolution / sqrt(6 strata)``, what rounding two scores to that step hides. Where s is 0 still,
    p is 0: runs without any spread differ for certain. A mean of zero has p = 1, whatever the spread.
    """
    strata, seeds = differences.shape
    by_seed = differences.mean(axis=0)
    mean, spread = abs(float(by_seed.mean())), max(float(by_seed.std(ddof=1)), resolution / math.sqrt(6 * strata))
    if mean == 0 or spread == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(mean / spread * math.sqrt(seeds), seeds - 1))


def verdict(adjusted_p: float, difference: Estimate) -> Verdict:
    """``better`` or ``worse`` when adjusted p is below 0.05 and the interval leaves out zero, else ``no difference``.

    Both must agree: the test guards against intervals too narrow for few seeds, the interval against a mean that a
    few extreme seeds carry.
    """
    if adjusted_p >= SIGNIFICANCE or difference.low <= 0 <= difference.high:
        return "no difference"
    return "better" if difference.low > 0 else "worse"


# ---- one curve ------------------------------------------------------------------------------------------------------


def until(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], end: float
) -> tuple[Float[np.ndarray, " knots"], Float[np.ndarray, " knots"]]:
    """The curve from 0 to exactly ``end``: linear between points, level before the first and after the last."""
    knots = np.union1d((0.0, end), x[x < end])
    return knots, np.interp(knots, x, y)


def average(x: Float[np.ndarray, " knots"], y: Float[np.ndarray, " knots"]) -> float:
    """Mean height of the curve: the area under it, by trapezoids, over its width."""
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def first_reach(x: Float[np.ndarray, " knots"], y: Float[np.ndarray, " knots"], level: float) -> float:
    """Where the curve, linear between knots, first is at ``level`` or above; infinity when it never is."""
    # A level that is itself a mean of scores may lie a rounding error above them.
    above = np.flatnonzero((y >= level) | np.isclose(y, level))
    if not above.size:
        return math.inf
    after = int(above[0])
    before = max(after - 1, 0)
    return float(np.interp(level, y[before : after + 1], x[before : after + 1]))


# ---- by resampling --------------------------------------------------------------------------------------------------


def _interquartile_mean(*strata: np.ndarray, axis: int) -> np.ndarray:
    mean: np.ndarray = stats.trim_mean(np.concatenate(strata, axis=axis), 0.25, axis=axis)
    return mean


def _bootstrap(
    statistic: Callable[..., np.ndarray],
    samples: Sequence[Float[np.ndarray, "*points seeds"]],
    rng: np.random.Generator,
    resamples: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The statistic of the samples, and the bounds of its percentile interval when each is resampled over seeds."""
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        axis=-1,
        rng=rng,
    ).confidence_interval
    return statistic(*samples, axis=-1), interval.low, interval.high
