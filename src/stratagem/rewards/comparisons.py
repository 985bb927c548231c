"""Rewards from comparisons: how often a trajectory is preferred to others of the same policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.advantages.comparisons import WinRate
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference, Reward
from stratagem.preferences.oracles import BradleyTerry


@dataclass(frozen=True)
class WinRateReward(Reward):
    """``R_i = mean_(j != i) (2 P(y_i > y_j) - 1)`` over the group, in place of what the task paid (SPO).

    A trajectory is worth the share of the group it beats, less that which beats it (arXiv 2401.04056). Whole
    trajectories are compared, so that a preference need not be a sum over their turns, and any way of giving credit and
    of learning may follow. Rewards of a group add up to 0. The task's own columns stay, at a weight of 0, behind a
    first one named ``win_rate``.

    preference: the oracle.  scale: ``signed``, in [-1, 1], or ``unit``: ``mean_j P(y_i > y_j)``, in [0, 1].
    over: where it is paid: at the ``end``, or an equal part in each of the ``turns``.

    One whose group has lost all others ties. Raises :class:`InputError` when all groups are of one, and what the
    oracle's answers make :class:`~stratagem.advantages.WinRate` raise.
    """

    preference: Preference = BradleyTerry()
    scale: Literal["signed", "unit"] = "signed"
    over: Literal["end", "turns"] = "end"

    def __call__(self, x: Experience) -> Experience:
        if x.trajectories and bool((x.group_of_trajectory.size() < 2).all()):
            raise InputError(
                f"reward {self.part_name()}: compares within a group: sampler.group_size must be at least 2"
            )
        above = WinRate(self.preference, against="others").of_answers(x)
        worth = 2 * above if self.scale == "signed" else above + 0.5
        columns = worth.new_zeros(x.trajectories, 0) if x.reward is None else x.reward.to(worth.dtype)
        names = () if x.reward is None else x.reward_names
        return x.replace(
            turn_reward=self._by_turn(worth, x),
            reward=torch.cat([worth.unsqueeze(1), columns], 1),
            reward_names=("win_rate", *names),
            reward_weights=(1.0, *(0.0 for _ in names)),
        )

    def _by_turn(self, worth: Float[Tensor, " trajectories"], x: Experience) -> Float[Tensor, " turns"] | None:
        if self.over == "end":
            return None
        return x.trajectory_of_turn.spread(worth / x.trajectory_of_turn.size().clamp(min=1))
