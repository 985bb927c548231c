"""Choosing among solutions: one score out of those of the steps, and one answer out of many."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import fmean
from typing import Literal, get_args

from stratagem.errors import InputError, unknown

Pooling = Literal["min", "mean", "gmean", "prod", "last"]
Choice = Literal["best", "vote_sum", "vote_mean", "majority"]


def pooled(scores: Sequence[float], by: Pooling = "min", skip: int = 1) -> float:
    """One score for a solution: the least, mean, geometric mean, product or last one of its steps.

    skip: steps at the beginning that are not looked at, as long as one is left. (With a single step the released code
    of arXiv 2501.12051 takes the minimum of nothing for 0; here that step is looked at.)

    Raises :class:`InputError` for an unknown pooling, no scores, and a geometric mean of a score below 0.
    """
    if by not in get_args(Pooling):
        raise unknown("pooling", by, get_args(Pooling))
    if not scores:
        raise InputError("pooled: scores must be of at least one step")
    looked = list(scores[min(skip, len(scores) - 1) :])
    if by == "min":
        return min(looked)
    if by == "mean":
        return fmean(looked)
    if by == "last":
        return looked[-1]
    if by == "gmean" and min(looked) < 0:
        raise InputError(f"pooled: a geometric mean needs scores of at least 0, got {min(looked)}")
    product = math.prod(looked)
    return product if by == "prod" else product ** (1 / len(looked))


def chosen_answer(
    answers: Sequence[Hashable | None], scores: Sequence[float], by: Choice = "vote_sum"
) -> Hashable | None:
    """The answer of the ``best`` solution, or of the highest sum (``vote_sum``), mean or number of solutions.

    answers: of every solution; None where there is none, which is never chosen.  scores: of every solution; not read
    for ``majority``. The first of equals wins; None where no solution has an answer.

    Raises :class:`InputError` for an unknown choice and unequal lengths.
    """
    if by not in get_args(Choice):
        raise unknown("choice", by, get_args(Choice))
    if len(answers) != len(scores):
        raise InputError(f"chosen_answer: {len(answers)} answers, but {len(scores)} scores")
    votes: dict[Hashable, list[float]] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(score)
    rules: dict[Choice, Callable[[list[float]], float]] = {
        "best": max,
        "vote_sum": math.fsum,
        "vote_mean": fmean,
        "majority": len,
    }
    return max(votes, key=lambda answer: rules[by](votes[answer]), default=None)
