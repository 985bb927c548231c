"""What sampling more is worth, exactly: majorities, the best of N by a verifier that errs, and learning from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from stratagem.errors import InputError


def majority_at_k(odds: Sequence[float], k: int) -> float:
    """Probability that the first answer wins a vote of ``k`` independent samples; a tie is broken by lot.

    ``sum over votes of P(votes) [answer 0 has most] / (number of answers that have most)``, summed exactly by dynamic
    programming over answers. With two answers and an odd ``k`` it is the binomial tail.

    odds: of every answer, the right one first; at least 0, adding up to 1.  k: at least 1.
    Raises :class:`InputError` for odds that are none and for ``k`` below 1.
    """
    _check_count("majority@k: k", k)
    _check_odds("majority@k", odds)
    right, *wrong = odds
    won = 0.0
    for votes in range(1, k + 1):
        # rest[used, tied]: weight of the ways in which wrong answers got ``used`` votes, ``tied`` of them ``votes``.
        rest = np.zeros((k - votes + 1, len(wrong) + 1))
        rest[0, 0] = 1.0
        for chance in wrong:
            grown = np.zeros_like(rest)
            for more in range(min(votes, k - votes) + 1):
                weight = chance**more / math.factorial(more)
                tied = int(more == votes)
                grown[more:, tied:] += weight * rest[: len(rest) - more, : rest.shape[1] - tied]
            rest = grown
        ways = math.factorial(k) * right**votes / math.factorial(votes)
        won += ways * float((rest[k - votes] / (1 + np.arange(len(wrong) + 1))).sum())
    return won


def best_of_n(right: float, n: int, accuracy: float = 1.0) -> float:
    """Probability that the best of ``n`` samples is right, when a verifier accepts and rejects with this accuracy.

    One of the accepted samples is taken by lot, or of all when none is accepted:
    ``(1 - r^n) p q / a + r^n p (1 - q) / r`` with ``a = p q + (1 - p)(1 - q)`` accepted and ``r = 1 - a``. An
    ``accuracy`` of 1 is an oracle: then it is pass@n. Below 1 the limit is ``p q / a`` and not 1, however large ``n``:
    a verifier that errs is what more search runs into.

    right: ``p``, of one sample.  n: at least 1.  accuracy: ``q``, on right and wrong answers alike. Both in [0, 1].
    Raises :class:`InputError` for a number out of range.
    """
    _check_count("best of n: n", n)
    for name, value in (("right", right), ("accuracy", accuracy)):
        if not 0 <= value <= 1:
            raise InputError(f"best of n: {name} = {value}: must be in [0, 1]")
    accepted = right * accuracy + (1 - right) * (1 - accuracy)
    rejected = 1 - accepted
    found = (1 - rejected**n) * right * accuracy / accepted if accepted > 0 else 0.0
    return found + (rejected ** (n - 1) * right * (1 - accuracy) if rejected > 0 else 0.0)


def searched(
    odds: Float[Tensor, "*batch answers"], right: Bool[Tensor, "*batch answers"], n: int
) -> Float64[Tensor, "*batch answers"]:
    """The policy of a best-of-n search by an oracle: a right answer of ``n`` samples, by lot; without one, any of them.

    ``pi_n(y) = pi(y) (1 - (1 - P)^n) / P`` for right answers, ``pi(y) (1 - P)^(n - 1)`` for wrong ones, with ``P`` the
    odds of a right one.
    """
    _check_count("search: n", n)
    odds = odds.double()
    solved = (odds * right).sum(-1, keepdim=True)
    raised = (1 - (1 - solved) ** n) / solved.clamp(min=torch.finfo(odds.dtype).tiny)
    return torch.where(right, odds * raised, odds * (1 - solved) ** (n - 1))


def cloned(
    odds: Float[Tensor, "*batch answers"], right: Bool[Tensor, "*batch answers"]
) -> Float64[Tensor, "*batch answers"]:
    """One round of expert iteration without sampling error: ``argmax_theta E[1[R(y) = 1] log pi_theta(y)]``.

    Of a policy that can represent it, ``pi'(y) = pi(y) 1[R(y) = 1] / P``: it is right at once wherever it ever was. It
    is the same for every number of samples searched, for oracles choose among right answers by their odds. Where
    nothing is right there is nothing to clone, and the policy stays as it is.
    """
    kept = odds.double() * right
    solved = kept.sum(-1, keepdim=True)
    return torch.where(solved > 0, kept / solved.clamp(min=torch.finfo(kept.dtype).tiny), odds.double())


def _check_count(what: str, count: int) -> None:
    if count < 1:
        raise InputError(f"{what} = {count}: must be at least 1")


def _check_odds(what: str, odds: Sequence[float]) -> None:
    if not odds or min(odds) < 0 or not math.isclose(sum(odds), 1.0, abs_tol=1e-6):
        raise InputError(f"{what}: odds {list(odds)}: must be at least 0 and add up to 1")
