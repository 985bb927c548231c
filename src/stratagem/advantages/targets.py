"""Advantages that also say which ratio an objective is to pull towards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.objectives.ratios import ratio_between
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GroupQuantileTarget(Advantage):
    """``A`` of another advantage, and the ratio ``1 - low + (low + high) sigmoid((R_i - q_g) / (s_g temperature))``.

    ``q_g`` is a quantile of the group's returns and ``s_g`` their sample standard deviation plus ``eps``. At a low
    temperature better trajectories are to be ``1 + high`` times as likely as before, worse ones ``1 - low`` times, and
    those on the quantile itself are held where they are: with one success in four, the three failures keep the ratio 1.
    Group form of arXiv 2604.18578; in a group of equal returns every target is the middle of the two bounds.

    of: the advantage, whose size weighs the pull.  low, high: distance of the bounds from 1; ``low`` below 1.
    temperature: of the sigmoid; in units of ``s_g``, or of the return when ``standardize`` is False.
    quantile: 0.5 is the median, between two returns by linear interpolation. For unequal bounds the exact solution has
    its threshold at ``high / (low + high)``; the released code keeps the median.

    A group of one has no standard deviation, and nothing to be compared with: 2 is the least.
    """

    minimum_group: ClassVar[int] = 2

    of: Advantage = GroupStandardized()
    low: Annotated[float, Ge(0), Lt(1)] = 0.3
    high: Annotated[float, Ge(0)] = 0.3
    temperature: Annotated[float, Gt(0)] = 1e-4
    quantile: Annotated[float, Ge(0), Le(1)] = 0.5
    standardize: bool = True
    eps: Annotated[float, Ge(0)] = 1e-6

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self.of(x)

    def target(self, x: Experience) -> Float[Tensor, " tokens"]:
        group, returns = x.group_of_trajectory, x.returns.double()
        score = returns - group.spread(group.quantile(returns, self.quantile))
        if self.standardize:
            score = score / (group.spread(group.std(returns)) + self.eps).clamp(min=1e-30)
        return x.to_tokens(trajectory=ratio_between(score / self.temperature, self.low, self.high).float())
