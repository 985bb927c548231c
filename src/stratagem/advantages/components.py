"""Credit given for each component of a composite reward on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Advantage


@dataclass(frozen=True)
class PerReward(Advantage):
    """``A = sum_k w_k A_k``: another advantage of each reward column alone, added up by the columns' weights.

    With group standardisation ``A_i = sum_k w_k (R_ik - mean_g R_k) / (std_g R_k + eps)``: a column counts by its
    weight however widely it spreads, as if it weighed ``w_k / std_k``. A column that is constant in a group gives 0
    there. For an advantage that is linear in the reward (group centering, leave-one-out) nothing changes.

    of: the advantage of each column. It sees the column as the whole reward, earned at the end of the trajectory.
    mean: whether the sum is divided by ``sum_k |w_k|``, so that it is a mean over columns of equal weights. Columns of
    weight 0 are not looked at.

    Raises :class:`InputError` for an advantage that cannot tell columns apart: one that reads a critic of the whole
    return, or remembers something between batches; and for a batch with token rewards, which belong to no column.
    """

    of: Advantage = GroupStandardized()
    mean: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_shared(self, self.of)

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        columns = _apart(self, self.of, x)
        if x.reward is None:
            return columns[0]
        weights = [weight for weight in x.reward_weights if weight]
        total = sum(map(abs, weights)) if self.mean else 1.0
        return _sum([weight / total * column for weight, column in zip(weights, columns, strict=True)], x)


@dataclass(frozen=True)
class SpreadWeighted(Advantage):
    """``A = sum_k v_k A_k``, ``v_k = w_k std_k^strength / sum_l w_l std_l^strength`` with deviations within the group.

    An advantage of each reward column alone, as in :class:`PerReward`, but a column counts in a group by how widely it
    spreads there. At strength 1 with standardised columns (DVAO, arXiv 2605.25604)

    ``A_i = sum_k w_k (R_ik - mean_g R_k) / sum_l w_l std_g R_l``,

    which is the centred sum of the rewards over the sum of their deviations, where GRPO divides by the deviation of the
    sum. So it orders a group as GRPO does, and is never larger; a column that hardly varies counts hardly anything,
    while :class:`PerReward` would blow it up to unit variance. At strength 0 it is ``PerReward`` with weights that add
    up to 1. Only the proportions of the weights matter.

    A wide spread is no sign of a good reward: a column of pure noise counts the more, the wider it is. And a column in
    another unit has another spread, so rewards are meant to lie in [0, 1], each; that is not checked.

    of: the advantage of each column. It sees the column as the whole reward, earned at the end of the trajectory.
    strength: power of the deviation, at least 0.  correction: 0 for the population's standard deviation, 1 for the
    sample's; that of ``of`` should be the same.

    A group in which no column of a positive weight varies gets 0 at any strength above 0. Raises :class:`InputError`
    for a weight below 0 and for a reward that is not finite; for the rest, as :class:`PerReward`.
    """

    of: Advantage = GroupStandardized(correction=0, eps=0.0)
    strength: Annotated[float, Ge(0)] = 1.0
    correction: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_shared(self, self.of)

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        columns = _apart(self, self.of, x)
        if x.reward is None:
            return columns[0]
        shares = self._weights(x, x.reward).float().unbind(1)
        weights = [x.to_tokens(group=share) for share, weight in zip(shares, x.reward_weights, strict=True) if weight]
        return _sum([weight * column for weight, column in zip(weights, columns, strict=True)], x)

    def _weights(self, x: Experience, reward: Tensor) -> Float[Tensor, "groups names"]:
        """``v``; all 0 in a group where nothing varies."""
        for name, weight in zip(x.reward_names, x.reward_weights, strict=True):
            if weight < 0:
                raise InputError(f"{self.part_name()}: weight of reward {name!r} = {weight}: must be at least 0")
        if not bool(reward.isfinite().all()):
            row, column = (int(place) for place in (~reward.isfinite()).nonzero()[0])
            raise InputError(
                f"{self.part_name()}: trajectory {row} has {x.reward_names[column]} {float(reward[row, column])}: "
                "must be finite"
            )
        spread = x.group_of_trajectory.std(reward.double(), self.correction)
        shares = spread**self.strength * torch.tensor(x.reward_weights, dtype=spread.dtype, device=x.device)
        total = shares.sum(1, keepdim=True)
        return shares / torch.where(total > 0, total, 1.0)


def _refuse_shared(part: Advantage, of: Advantage) -> None:
    """Refuse an advantage that cannot tell columns apart."""
    if "value" in of.needs():
        raise InputError(
            f"{part.part_name()}.of = {of.part_name()}: reads one critic, but columns have values of their own"
        )
    if of.state_dict():
        raise InputError(f"{part.part_name()}.of = {of.part_name()}: remembers what columns would have to share")


def _apart(part: Advantage, of: Advantage, x: Experience) -> list[Float[Tensor, " tokens"]]:
    """What ``of`` says of each column that counts, alone; of the return, where there are no columns."""
    if x.token_reward is not None:
        raise InputError(f"{part.part_name()}: token rewards belong to no column; put a KL penalty into the loss")
    if x.reward is None:
        return [of(x)]
    return [
        of(x.replace(reward=column, reward_names=(name,), reward_weights=(1.0,), turn_reward=None))
        for column, name, weight in zip(x.reward.unbind(1), x.reward_names, x.reward_weights, strict=True)
        if weight
    ]


def _sum(credit: list[Float[Tensor, " tokens"]], x: Experience) -> Float[Tensor, " tokens"]:
    """Of columns; 0 where none counts."""
    return torch.stack(credit).sum(0) if credit else torch.zeros(x.tokens, device=x.device)
