"""Intervals for what an evaluation counted, by scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from stratagem.training.world import Evaluation


def success_interval(successes: int, episodes: int) -> tuple[float, float]:
    """95 % Wilson interval of a share; (0, 1) for no episodes."""
    from scipy import stats  # takes a second, for which no listing of techniques should wait

    if episodes == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, episodes).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % Student interval of a mean; (nan, nan) for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    spread = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    half = float(stdtrit(len(values) - 1, 0.975)) * spread
    mean = float(np.mean(values))
    return mean - half, mean + half


def evaluation(
    mode: Literal["sampled", "greedy"],
    returns: Sequence[float],
    lengths: Sequence[int],
    successes: Sequence[bool] | None,
    failed: int = 0,
    samples: Sequence[dict[str, Any]] = (),
) -> Evaluation:
    """The evaluation of these episodes; failed ones are counted and not among them."""
    known = successes is not None and len(returns) > 0
    return Evaluation(
        mode=mode,
        episodes=len(returns),
        success=float(np.mean(successes)) if known and successes is not None else None,
        interval=mean_interval(returns) if successes is None else success_interval(sum(successes), len(returns)),
        mean_return=float(np.mean(returns)) if returns else math.nan,
        std_return=float(np.std(returns)) if returns else math.nan,
        mean_length=float(np.mean(lengths)) if lengths else math.nan,
        failed=failed,
        samples=list(samples),
    )
