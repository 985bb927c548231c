"""Aggregations: the weight every token of a batch has in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Aggregation


@dataclass(frozen=True)
class TokenMean(Aggregation):
    """``sum_t l_t / N``: every token counts the same (DAPO, arXiv 2503.14476, eq. 12)."""

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        learnable = x.learnable().float()
        return learnable / learnable.sum().clamp(min=1)


@dataclass(frozen=True)
class SequenceMean(Aggregation):
    """``mean_i (sum_t l_it / |y_i|)``: every trajectory counts the same (GRPO, arXiv 2402.03300, eq. 3).

    Trajectories without a token that may train are not counted.
    """

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        learnable = x.learnable()
        length = x.trajectory_of_token.sum(learnable)
        per_trajectory = 1.0 / (length.clamp(min=1) * _counted(length))
        return x.trajectory_of_token.spread(per_trajectory) * learnable


@dataclass(frozen=True)
class SequenceSum(Aggregation):
    """``mean_i sum_t l_it``: the policy-gradient theorem's own weight, the return of whole trajectories."""

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        learnable = x.learnable()
        return learnable / _counted(x.trajectory_of_token.sum(learnable))


@dataclass(frozen=True)
class FixedLength(Aggregation):
    """``sum_t l_it / (B L)`` with a constant ``L``: Dr. GRPO's removal of the length bias (arXiv 2503.20783).

    length: the constant, usually the limit on tokens of a trajectory.
    """

    length: Annotated[int, Ge(1)] = 1024

    def weights(self, x: Experience) -> Float[Tensor, " tokens"]:
        learnable = x.learnable()
        return learnable / (_counted(x.trajectory_of_token.sum(learnable)) * self.length)


def _counted(length: Tensor) -> Tensor:
    """How many trajectories have a token that may train (at least 1, so that an empty batch has loss 0)."""
    return (length > 0).sum().clamp(min=1).to(torch.float32)
