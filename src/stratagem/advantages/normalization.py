"""Normalisation of returns by group or batch, and of another advantage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage

Level = Literal["group", "domain", "batch"]


@dataclass(frozen=True)
class NormalizedReturn(Advantage):
    """``A_i = (R_i - mean R) / (std R + eps)``, with mean and deviation each over the group, domain or batch.

    The mean of the group and the deviation of the batch are Lite PPO's (arXiv 2508.08221); the deviation of the domain,
    which is a task among several, is QwenLong-L1.5's (arXiv 2512.12967, eq. 7). Both of the group are
    ``GroupStandardized``; no division by a deviation is ``GroupCentered``. Exactly 0 where ``R_i`` is the mean.

    center: over what the mean is taken.  scale: over what the standard deviation is, in trajectories; the group's needs
    the group's mean; None for no division.  spread_of: what it is the deviation of, the returns or the centered ones.
    correction: 1 for the sample standard deviation (what trainers compute), 0 for the population's.
    eps: added to the standard deviation.
    """

    center: Level = "group"
    scale: Level | None = "batch"
    spread_of: Literal["returns", "centered"] = "returns"
    correction: Literal[0, 1] = 1
    eps: Annotated[float, Ge(0)] = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale == "group" and self.center != "group":
            raise InputError(
                f"{self.part_name()}.scale = group: needs center = group, since a group of equal returns has no "
                "deviation to divide by"
            )

    def least_group(self) -> int:
        return 2 if self.center == "group" else 1

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        centered = _trajectories(x, self.center).center(x.returns)
        if self.scale is None:
            return x.to_tokens(trajectory=centered)
        level = _trajectories(x, self.scale)
        spread = level.std(x.returns if self.spread_of == "returns" else centered, self.correction) + self.eps
        return x.to_tokens(trajectory=centered / level.spread(torch.where(spread > 0, spread, 1.0)))


@dataclass(frozen=True)
class BatchWhitened(Advantage):
    """``(A - mean A) / (std A + eps)`` over all tokens of the batch that may train (REINFORCE++, arXiv 2501.03262).

    of: the advantage to whiten.  correction: 0 for the population's standard deviation, 1 for the sample's.
    """

    of: Advantage
    correction: Literal[0, 1] = 0
    eps: Annotated[float, Ge(0)] = 1e-8

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        values = self.of(x)
        if x.mask is None:
            return Partition.whole(x.tokens, x.device).standardize(values, self.correction, self.eps)
        kept = values[x.mask]
        whitened = Partition.whole(len(kept), x.device).standardize(kept, self.correction, self.eps)
        return torch.zeros_like(values).masked_scatter(x.mask, whitened)


@dataclass(frozen=True)
class ClippedAdvantage(Advantage):
    """``clip(A, -limit, limit)``: no token counts more than ``limit``, however rare its success.

    of: the advantage to clip.  limit: above 0.
    """

    of: Advantage
    limit: Annotated[float, Gt(0)] = 2.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return self.of(x).clamp(-self.limit, self.limit)


def _trajectories(x: Experience, level: Level) -> Partition:
    if level == "batch":
        return Partition.whole(x.trajectories, x.device)
    return x.group_of_trajectory if level == "group" else x.domain_of_trajectory


@dataclass(frozen=True)
class Exponential(Advantage):
    """``min(exp(A / temperature), largest)``: with the log-likelihood gate, advantage-weighted regression.

    Never negative: what the policy did is imitated, the better ones more (arXiv 1910.00177).

    of: the advantage.  temperature, largest: above 0.
    """

    of: Advantage
    temperature: Annotated[float, Gt(0)] = 1.0
    largest: Annotated[float, Gt(0)] = 20.0

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        return (self.of(x) / self.temperature).clamp(max=math.log(self.largest)).exp()
