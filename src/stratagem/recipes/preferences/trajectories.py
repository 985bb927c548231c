"""Reinforcement learning from comparisons of whole trajectories, without a model of rewards."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import TotalReturn
from stratagem.catalogue import paper
from stratagem.objectives import LogLikelihood, PolicyGradient, SequenceSum
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry
from stratagem.recipe import Recipe
from stratagem.rewards import WinRateReward
from stratagem.sampling import Rollouts

__all__ = ["spo"]


@paper(
    "2401.04056",
    title="A Minimaximalist Approach to Reinforcement Learning from Human Feedback",
    family="preferences",
    roles=("reward",),
    year=2024,
    base="reinforce",
)
def spo(
    preference: Preference = BradleyTerry(),  # noqa: B008
    group_size: int = 16,
    scale: Literal["signed", "unit"] = "signed",
    over: Literal["end", "turns"] = "end",
) -> Recipe:
    """A policy gradient with ``R_i = mean_(j != i) (2 P(y_i > y_j) - 1)``: a trajectory earns by what it beats.

    Self-play with one policy: a learner without regret against itself has an average policy near the minimax winner,
    whom nobody beats more often than not, whatever preferences are (intransitive, noisy, of things that no sum over
    turns says). Rewards of a group add up to 0, so no baseline is needed.

    preference: the oracle, of whole trajectories.  scale, over: see :class:`~stratagem.rewards.WinRateReward`.
    group_size: trajectories that are compared, all of the present policy and from one start; the paper's queue of
    the last ones is this batch.

    It is a reward: ``advantage`` and ``objective`` may be any others, a critic's included.
    """
    return Recipe(
        name="spo",
        base="reinforce",
        sampler=Rollouts(group_size=group_size),
        rewards=(WinRateReward(preference, scale, over),),
        advantage=TotalReturn(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
    )
