"""Credit by how a trajectory ranks, whatever its reward is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GaussianRanks(Advantage):
    """``A_i``: mean of ``Phi^-1((k - 1/2) / N)`` over the ranks ``k`` that a return holds among ``N``, lowest first.

    The monotone map of the returns to a standard normal distribution (arXiv 2604.08539, Gaussian GRPO). Any increasing
    function of the rewards gives the same credit, so neither their scale nor an outlier matters. It adds up to 0, lies
    within ``+-Phi^-1(1 - 1/(2N))`` (1.53 for 8, 1.86 for 16), and is 0 where all are equal. Its variance is below 1,
    and the less, the more returns are tied: one success in eight has 0.34.

    Equal returns hold their ranks together, and get the mean of the quantiles, not the quantile of the mean rank. The
    offset 1/2 and this rule are those that reproduce the paper's worked examples (its figure 2).

    over: whom a trajectory is ranked with, its group, or all trajectories of its domain. The paper's figure has one
    group, its text speaks of a task; the second is a reconstruction of that.
    tolerance: returns are rounded to multiples of it, so that rounding errors make no ranks; 0: they are not.

    Raises :class:`InputError` for a return that is not finite.
    """

    over: Literal["group", "domain"] = "group"
    tolerance: Annotated[float, Ge(0)] = 1e-6

    def least_group(self) -> int:
        return 2 if self.over == "group" else 1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        returns = x.returns
        if not bool(returns.isfinite().all()):
            bad = int((~returns.isfinite()).nonzero()[0, 0])
            raise InputError(f"{self.part_name()}: trajectory {bad} has a return of {float(returns[bad])}: not finite")
        level = x.group_of_trajectory if self.over == "group" else x.domain_of_trajectory
        rounded = (returns.double() / self.tolerance).round() if self.tolerance else returns
        credit = _gaussian(rounded, level).to(torch.promote_types(returns.dtype, torch.float32))
        return x.to_tokens(trajectory=credit)


def _gaussian(values: Float[Tensor, " rows"], level: Partition) -> Float[Tensor, " rows"]:
    """Normal quantiles by rank within the segments of ``level``, shared by equal values; float64."""
    size, rank = level.spread(level.size()), level.rank(values)
    mirrored = size - 1 - rank
    # The lower half, mirrored: so the quantiles of a segment add up to 0 but for the rounding of the sum.
    lower = torch.special.ndtri((torch.minimum(rank, mirrored) + 0.5).double() / size)
    quantile = lower * (mirrored - rank).sign()
    tied = Partition.by(torch.unique(values, return_inverse=True)[1], within=level)
    return torch.where(tied.spread(tied.size()) == size, 0.0, tied.spread(tied.mean(quantile)))
