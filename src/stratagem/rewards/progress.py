"""Rewards of turns made of what each contributed and of whether its action could be carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Reward


@dataclass(frozen=True)
class TurnProgress(Reward):
    """``r_u = scale c_u + grounding g_u`` for every turn, in place of what the task paid (SPA, arXiv 2505.20732).

    ``c_u`` is ``turn_progress``; ``g_u`` is 1 where the action of the turn was carried out (``turn_executed``; a task
    that does not say so carries out everything) and in the last turn, else 0. The task's own reward columns stay, at a
    weight of 0, behind a first one named ``progress`` that is the sum of the turns.

    source: of ``c_u``: the ``estimate``, or ``leave_one_out``, the return less the mean of the group's others, alike in
    all turns of a trajectory (what the code released with the paper does; a trajectory alone in its group gets 0).
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.granularity.process", "reward.shaping.outcome_to_process"})

    scale: Annotated[float, Ge(0)] = 1.0
    grounding: Annotated[float, Ge(0)] = 0.5
    source: Literal["estimate", "leave_one_out"] = "estimate"

    def needs(self) -> frozenset[str]:
        return frozenset({"turn_progress"} if self.source == "estimate" else set())

    def __call__(self, x: Experience) -> Experience:
        progress = self._progress(x)
        earned = self.scale * progress + self.grounding * _grounded(x).to(progress.dtype)
        total = x.trajectory_of_turn.sum(earned).unsqueeze(1)
        if x.reward is None:
            return x.replace(turn_reward=earned, reward=total, reward_names=("progress",), reward_weights=(1.0,))
        return x.replace(
            turn_reward=earned,
            reward=torch.cat([total, x.reward.to(total.dtype)], 1),
            reward_names=("progress", *x.reward_names),
            reward_weights=(1.0, *(0.0 for _ in x.reward_names)),
        )

    def _progress(self, x: Experience) -> Float[Tensor, " turns"]:
        if self.source == "leave_one_out":
            group = x.group_of_trajectory
            above = x.returns - group.leave_one_out(x.returns, alone=0.0)
            return x.trajectory_of_turn.spread(torch.where(group.spread(group.size() > 1), above, 0.0))
        if x.turn_progress is None:
            raise ValueError(f"{self.part_name()} needs x.turn_progress")
        return x.turn_progress


def _grounded(x: Experience) -> Bool[Tensor, " turns"]:
    if x.turn_executed is None:
        return torch.ones(x.turns, dtype=torch.bool, device=x.device)
    return x.turn_executed | x.trajectory_of_turn.is_last()
