"""What a belief earns: four terms in [0, 1] and their gated mean (arXiv 2605.11436, with its released code)."""

from __future__ import annotations

from collections.abc import Iterable


def tracking(new: int, missing: int, stale: int, total: int) -> float:
    """``new / max(1, new + missing) (1 - stale / total)``, in [0, 1], and 0 where there are no claims.

    new, missing: facts of the last observation that the belief holds, and lacks.  stale: claims it keeps although the
    observation contradicts them.  total: its claims.
    """
    if total <= 0:
        return 0.0
    return min(1.0, max(0.0, new / max(1, new + missing) * (1 - stale / total)))


def correctness(correct: int, partial: int, verifiable: int) -> float:
    """``(correct + partial / 2) / verifiable``, and 0 where no claim can be verified.

    partial: true facts with a badly wrong label.
    """
    return (correct + 0.5 * partial) / verifiable if verifiable > 0 else 0.0


def task_credit(result: float, left: int, discount: float = 0.9) -> float:
    """``discount^left result``: the end of the episode, ``left`` beliefs later."""
    return discount**left * result


def combined(gate: float, terms: Iterable[float | None]) -> float:
    """``gate`` times the mean of the terms that are known (not None); 0 where none is.

    The released code counts a term whose judge failed as 0; here it is left out, and the mean is over the others.
    """
    known = [term for term in terms if term is not None]
    return gate * sum(known) / len(known) if known else 0.0
