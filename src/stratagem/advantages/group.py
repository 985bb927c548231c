"""Advantages that compare a trajectory with the others of its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GroupCentered(Advantage):
    """``A_i = R_i - mean_g R``: the group baseline without a scale (Dr. GRPO, arXiv 2503.20783)."""

    minimum_group: ClassVar[int] = 2

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return x.to_tokens(trajectory=x.group_of_trajectory.center(x.returns))


@dataclass(frozen=True)
class GroupStandardized(Advantage):
    """``A_i = (R_i - mean_g R) / (std_g R + eps)``: GRPO (arXiv 2402.03300). Exactly 0 in a group of equal rewards.

    correction: 1 for the sample standard deviation (divisor G - 1, what trainers compute), 0 for the population's.
    eps: added to the standard deviation.
    """

    minimum_group: ClassVar[int] = 2

    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        standardized = x.group_of_trajectory.standardize(x.returns, self.correction, self.eps)
        return x.to_tokens(trajectory=standardized)


@dataclass(frozen=True)
class LeaveOneOut(Advantage):
    """``A_i = R_i - mean_{j != i} R_j``: RLOO (arXiv 2402.14740); equals ``G / (G - 1)`` times the centered reward.

    Raises ``ValueError`` for a group of one.
    """

    minimum_group: ClassVar[int] = 2

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        # In float64, or the baseline's rounding would show in the difference of large returns.
        returns = x.returns.double()
        advantage = returns - x.group_of_trajectory.leave_one_out(returns)
        return x.to_tokens(trajectory=advantage.to(torch.promote_types(x.returns.dtype, torch.float32)))
