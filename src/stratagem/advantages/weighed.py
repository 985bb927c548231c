"""Advantages of whole groups, weighed by what a rule says of their rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.part import Part
from stratagem.parts import Advantage


@dataclass(frozen=True)
class GroupRule(Part):
    """Says of every group whether its rollouts promise something, from what they earned and how long they are."""

    kind: ClassVar[str] = "group_rule"

    def __call__(self, x: Experience) -> Bool[Tensor, " groups"]:
        """True for the groups that do."""
        raise NotImplementedError


@dataclass(frozen=True)
class LongerSuccess(GroupRule):
    """``max_{i in P} l_i > mean_{i in N} l_i``: the longest success is longer than failures are on average (ADORA).

    ``P`` are the trajectories with ``R_i > threshold``, ``N`` the others that were not cut by a limit, ``l_i`` the
    tokens of a trajectory that may train. A tie says no. Where ``N`` is empty the rule says ``without_failures``, where
    ``P`` is, ``without_successes``, whatever ``N`` is.

    threshold: of the return.  limit: in tokens; a failure of at least so many was cut. None: the batch says itself
    which were (``x.truncated``).
    without_failures, without_successes: True and False in the authors' release for text, the other way round in that
    for vision and language.

    Raises ``ValueError`` for a return that is not finite.
    """

    threshold: float = 0.5
    limit: Annotated[int, Ge(1)] | None = None
    without_failures: bool = True
    without_successes: bool = False

    def needs(self) -> frozenset[str]:
        """``truncated``, unless a limit says what was."""
        return super().needs() | (frozenset({"truncated"}) if self.limit is None else frozenset())

    def __call__(self, x: Experience) -> Bool[Tensor, " groups"]:
        by_group, right = x.group_of_trajectory, _returns(x) > self.threshold
        lengths = x.trajectory_of_token.size() if x.mask is None else x.trajectory_of_token.sum(x.mask)
        lengths = lengths.double()
        failed = ~right & ~self._cut(x, lengths)
        failures = by_group.sum(failed)
        longest = by_group.max(torch.where(right, lengths, -torch.inf))
        mean_failed = by_group.sum(torch.where(failed, lengths, 0.0)) / failures.clamp(min=1)
        said = torch.where(failures > 0, longest > mean_failed, self.without_failures)
        return torch.where(by_group.sum(right) > 0, said, self.without_successes)

    def _cut(self, x: Experience, lengths: Float[Tensor, " trajectories"]) -> Bool[Tensor, " trajectories"]:
        if self.limit is not None:
            return lengths >= self.limit
        if x.truncated is None:
            raise ValueError(f"{self.part_name()} without a limit needs x.truncated")
        return x.truncated


@dataclass(frozen=True)
class PassRateBand(GroupRule):
    """``low <= share_i (R_i > threshold) <= high``: prompts that are neither too hard nor too easy yet.

    threshold: of the return.  low, high: in [0, 1], in this order.

    Raises :class:`InputError` for bounds in the wrong order, ``ValueError`` for a return that is not finite.
    """

    low: Annotated[float, Ge(0), Le(1)] = 0.2
    high: Annotated[float, Ge(0), Le(1)] = 0.8
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise InputError(f"{self.part_name()}.low = {self.low}: must be at most high = {self.high}")

    def __call__(self, x: Experience) -> Bool[Tensor, " groups"]:
        share = x.group_of_trajectory.mean((_returns(x) > self.threshold).double())
        return (share >= self.low) & (share <= self.high)


@dataclass(frozen=True)
class WeighedGroups(Advantage):
    """``A'_i = w_g A_i``: ``w_g`` is ``promising`` where ``rule`` says yes, ``others`` elsewhere (ADORA, 2602.10019).

    The verdict is made anew from every group, so a prompt may count less in one batch and in full in the next. It comes
    after the group is normalised, so the step on a damped group is shorter; nothing is divided by the weights.

    of: the advantage to weigh.  rule: see :class:`LongerSuccess` and :class:`PassRateBand`.
    promising: at least 1; above it amplifies.  others: in [0, 1]; 0 drops the groups. Both 1 leave ``of`` as it is.
    """

    of: Advantage = GroupStandardized()
    rule: GroupRule = LongerSuccess()
    promising: Annotated[float, Ge(1)] = 1.0
    others: Annotated[float, Ge(0), Le(1)] = 0.1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = x.of_learnable(self.of(x))
        weights = torch.where(self.rule(x), credit.new_tensor(self.promising), credit.new_tensor(self.others))
        # By way of trajectories, which are few: tokens by group would be one more table of all tokens.
        return credit * x.to_tokens(trajectory=x.group_of_trajectory.spread(weights))


def _returns(x: Experience) -> Float[Tensor, " trajectories"]:
    returns = x.returns
    if not bool(returns.isfinite().all()):
        number = int(torch.nonzero(~returns.isfinite())[0])
        raise ValueError(f"the return of trajectory {number} is not finite")
    return returns
