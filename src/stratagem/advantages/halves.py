"""Advantages that compare the halves of a group, told apart by a figure of the trajectories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.experience import Experience
from stratagem.objectives.entropy_bands import entropy_of_turns
from stratagem.partition import Partition
from stratagem.parts import Advantage

Metric = Literal["entropy", "length", "order"]


@dataclass(frozen=True)
class GroupHalves(Advantage):
    """``A_i = across (s_i R_i - mean_other(s R) +- offset) + (1 - across) (R_i - mean_own R)``: CANON (2509.23962).

    A group of ``G`` is ordered by a metric; its first ``floor(G / 2)`` are the low half, the rest the high one.
    ``mean_own`` is over the half a trajectory is in, ``mean_other`` over the other one. Compared across halves, a
    reward tells which end of the metric pays; compared within one, who is best there. In a group of even size, both
    with weight 1/2 are ``GroupCentered`` exactly. Equal values keep the order of the batch, so that where many are
    equal the halves are partly by chance. A group of one gets 0. Computed in float64.

    metric: ``entropy`` is the mean of ``x.entropy`` over the tokens of a trajectory that may train, in nats; ``length``
    their number; ``order`` the place in the group, which says nothing: a control. Without any such token, 0.
    across: weight of the comparison across halves, in [0, 1]; ``accuracy`` is the mean return of the batch, ``error`` 1
    minus that.
    favored, worth: ``s`` is 1 in the favored half and ``worth`` in the other one, at least 0. Below 1 it favors one end
    of the metric without a penalty; 1 favors none. Otherwise groups of equal returns have an advantage, too.
    offset: added in the high half, subtracted in the low one, of what is compared across halves.

    The rule is that of the authors' released code; that a group of one gets 0, where it gets its reward there, is not.

    Raises ``ValueError`` for an entropy that is not finite, a mean return outside [0, 1] where it is a weight, and a
    batch without entropies.
    """

    minimum_group: ClassVar[int] = 2

    metric: Metric = "entropy"
    across: Annotated[float, Ge(0), Le(1)] | Literal["accuracy", "error"] = 1.0
    favored: Literal["low", "high"] = "high"
    worth: Annotated[float, Ge(0)] = 1.0
    offset: float = 0.0

    def needs(self) -> frozenset[str]:
        """``entropy``, where that is the metric."""
        return super().needs() | (frozenset({"entropy"}) if self.metric == "entropy" else frozenset())

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        by_group, returns = x.group_of_trajectory, x.returns.double()
        sizes = by_group.size()
        high = by_group.rank(self._figure(x)) >= by_group.spread(sizes // 2)
        half = 2 * by_group.labels + high
        halves = Partition(half, 2 * by_group.count)
        worth = torch.where(high == (self.favored == "high"), returns, self.worth * returns)
        across = worth - halves.mean(worth)[half ^ 1] + self.offset * (2 * high.double() - 1)
        weight = self._weight(returns)
        credit = weight * across + (1 - weight) * halves.center(returns)
        credit = torch.where(by_group.spread(sizes) > 1, credit, 0.0)
        return x.to_tokens(trajectory=credit.to(torch.promote_types(x.returns.dtype, torch.float32)))

    def _figure(self, x: Experience) -> Float64[Tensor, " trajectories"]:
        if self.metric == "order":
            return x.group_of_trajectory.position().double()
        if self.metric == "length":
            lengths = x.trajectory_of_token.size() if x.mask is None else x.trajectory_of_token.sum(x.mask)
            return lengths.double()
        total, tokens = (x.trajectory_of_turn.sum(values) for values in entropy_of_turns(x))
        return total / tokens.clamp(min=1)

    def _weight(self, returns: Float64[Tensor, " trajectories"]) -> float:
        if not isinstance(self.across, str):
            return self.across
        accuracy = float(returns.mean()) if len(returns) else 0.0
        if not 0 <= accuracy <= 1:
            raise ValueError(f"{self.part_name()}.across = {self.across}: the mean return, {accuracy:g}, is no share")
        return accuracy if self.across == "accuracy" else 1 - accuracy
