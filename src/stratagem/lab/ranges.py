"""Leaves drawn from ranges of leaves, by how likely they are."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int
from torch import Tensor


def within(
    probability: Float64[Tensor, " leaves"],
    first: Int[Tensor, " groups"],
    last: Int[Tensor, " groups"],
    uniform: Float64[Tensor, "groups size"],
) -> Int[Tensor, "groups size"]:
    """The leaves of these ranges at which uniform numbers point."""
    upper = probability.cumsum(0)
    low, high = torch.cat([upper.new_zeros(1), upper])[first], upper[last]
    chosen = place(upper, torch.lerp(low[:, None], high[:, None], uniform))
    # What rounding may do at the edge of a range must not lead into another one.
    return chosen.clamp(first[:, None], last[:, None])


def place(upper: Float64[Tensor, " cells"], point: Float64[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The cell in which each point lies; cells end at ``upper``, and empty ones hold nothing."""
    return torch.searchsorted(upper, point, right=True).clamp_(max=len(upper) - 1)
