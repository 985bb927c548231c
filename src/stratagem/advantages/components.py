"""Credit given for each component of a composite reward on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
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
        if "value" in self.of.needs():
            raise InputError(
                f"per_reward.of = {self.of.part_name()}: reads one critic, but columns have values of their own"
            )
        if self.of.state_dict():
            raise InputError(f"per_reward.of = {self.of.part_name()}: remembers what columns would have to share")

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        if x.token_reward is not None:
            raise InputError("per_reward: token rewards belong to no column; put a KL penalty into the loss")
        if x.reward is None:
            return self.of(x)
        total = sum(map(abs, x.reward_weights)) if self.mean else 1.0
        columns = zip(x.reward.unbind(1), x.reward_names, x.reward_weights, strict=True)
        credit = [
            weight
            / total
            * self.of(x.replace(reward=column, reward_names=(name,), reward_weights=(1.0,), turn_reward=None))
            for column, name, weight in columns
            if weight
        ]
        return torch.stack(credit).sum(0) if credit else x.reward.new_zeros(x.tokens)
