"""Rewards from a model that has learned what is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import FiniteFloat

from stratagem.experience import Experience
from stratagem.parts import Reward
from stratagem.preferences.models import check_model, embedded
from stratagem.readings import ReadsAnswers, Scored


@dataclass(frozen=True)
class ModelReward(ReadsAnswers, Reward):
    """``R = weight (score - offset)`` by a reward model, in a column named ``model``, beside or in place of the task's.

    The model reads prompt and answer (of several turns, all that was said) once, when the batch is collected, as
    :class:`~stratagem.preferences.models.PreferenceModel` has it. A trajectory that does not fit into its context
    counts as failed.

    path: folder of a model trained by ``bradley_terry_model``.  weight: what its column counts.  offset: the score that
    is worth nothing.  alone: the task's own columns stay, behind this one and at a weight of 0; what turns
    earned is gone.

    Raises :class:`InputError`, before a run begins, for a folder without a model of scores.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"reading"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.verifier.model", "reward.granularity.outcome"})

    path: str = ""
    weight: FiniteFloat = 1.0
    offset: FiniteFloat = 0.0
    alone: bool = True

    def check_ready(self) -> None:
        check_model(self.part_name(), self.path, scores=True)

    def score(self, answers: Sequence[Scored]) -> list[float]:
        said: list[float] = embedded(self.path, answers).squeeze(-1).tolist()
        return said

    def __call__(self, x: Experience) -> Experience:
        score = self.scored(x) - self.offset
        own = score.unsqueeze(1)
        if x.reward is None:
            return x.replace(reward=own, reward_names=("model",), reward_weights=(self.weight,))
        own, names, weights = own.to(x.reward.dtype), x.reward_names, x.reward_weights
        if not self.alone:
            return x.replace(
                reward=torch.cat([x.reward, own], 1),
                reward_names=(*names, "model"),
                reward_weights=(*weights, self.weight),
            )
        # First, where penalties of other parts are charged.
        return x.replace(
            turn_reward=None,
            reward=torch.cat([own, x.reward], 1),
            reward_names=("model", *names),
            reward_weights=(self.weight, *(0.0 for _ in names)),
        )
