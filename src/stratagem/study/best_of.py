"""What the best of several answers is worth when the weights of its rewards are only known afterwards."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.errors import InputError


def expected_best(
    values: Float[Tensor, "answers ..."], probability: Float[Tensor, " answers"], count: int
) -> Float64[Tensor, "..."]:
    """``E max`` of so many independent draws: ``sum_i v_(i) (F_i^n - F_(i-1)^n)``, ``F`` the distribution of values.

    values: of every answer there is.  probability: of each; scaled to add up to 1.  count: ``n``, at least 1.
    """
    _at_least_one(count, None)
    ordered, order = values.double().sort(0)
    below = probability.double()[order].cumsum(0)
    reached = (below / below[-1:]) ** count
    return (ordered * reached.diff(dim=0, prepend=torch.zeros_like(reached[:1]))).sum(0)


def best_of(values: Float[Tensor, "samples ..."], count: int) -> Float64[Tensor, "..."]:
    """The same from a sample, without bias: the mean of the best over all choices of ``count`` of its rows.

    ``sum_i v_(i) C(i - 1, k - 1) / C(n, k)`` with ``v_(i)`` the ``i``-th smallest of ``n`` and ``k = count``. With
    values of 0 and 1 it is pass@k.

    Raises :class:`InputError` for a count of 0, or above the size of the sample.
    """
    samples = len(values)
    _at_least_one(count, samples)
    place = torch.arange(1, samples + 1, dtype=torch.float64, device=values.device)
    total = _log_choose(place.new_tensor(float(samples)), count)
    share = torch.where(place >= count, (_log_choose(place - 1, count - 1) - total).exp(), 0.0)
    ordered, _ = values.double().sort(0)
    return (ordered.movedim(0, -1) * share).sum(-1)


def _log_choose(above: Tensor, below: int) -> Tensor:
    """``log C(above, below)``; not a number where there is no such choice."""
    free = above - below + 1
    fixed = torch.lgamma(free.new_tensor(below + 1.0))
    return torch.lgamma(above + 1) - fixed - torch.lgamma(free.where(free > 0, torch.nan))


def _at_least_one(count: int, most: int | None) -> None:
    if count < 1 or (most is not None and count > most):
        allowed = "at least 1" if most is None else f"from 1 to {most}, the size of the sample"
        raise InputError(f"best of count = {count}: must be {allowed}")
