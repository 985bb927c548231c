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
class TokenStandardized(Advantage):
    """``A_i = (R_i - m_g) / (s_g + eps)`` with mean and population deviation over the tokens of the group.

    Every token that may train has its trajectory's return, so that longer trajectories count more in ``m_g`` and
    ``s_g``, and the advantages of a group's tokens add up to 0. A group in which a token's would be ``most`` or more in
    size (one right trajectory, far shorter than the rest) has those of :class:`GroupStandardized` instead. (HAPO's
    token-level group average, arXiv 2509.16591; formula and numbers of its released code.)

    most: 0 is :class:`GroupStandardized` in every group.  eps: added to the standard deviation of either kind.
    """

    minimum_group: ClassVar[int] = 2

    most: Annotated[float, Ge(0)] = 5.0
    eps: Annotated[float, Ge(0)] = 1e-6

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        group = x.group_of_trajectory
        tokens = x.trajectory_of_token.sum(x.learnable().double())
        total = group.sum(tokens).clamp(min=1)
        # Centered first, so that equal returns are exactly 0 and remain so.
        returns = group.center(x.returns.double())
        away = returns - group.spread(group.sum(tokens * returns) / total)
        deviation = (group.sum(tokens * away.square()) / total).sqrt() + self.eps
        by_token = away / group.spread(torch.where(deviation > 0, deviation, 1.0))
        far = group.max(torch.where(tokens > 0, by_token.abs(), 0.0)) >= self.most
        by_trajectory = group.standardize(x.returns, 1, self.eps)
        return x.to_tokens(trajectory=torch.where(group.spread(far), by_trajectory, by_token.to(by_trajectory.dtype)))


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
