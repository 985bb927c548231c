"""A gate as wide as a response was unsure of itself in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Gate


@dataclass(frozen=True)
class TailConfidenceClip(Gate):
    """PPO's clip at ``1 - eps_i`` and ``1 + eps_i``, wider for a response that ended unsure (ECHO, arXiv 2602.02150).

    ``eps_i = least + (most - least) sigmoid(slope ((1 - C_i) - center))`` with ``C_i`` the mean ``confidence`` of the
    last ``tail`` tokens of the trajectory that may train, or of all where there are fewer. By the released code, which
    has ``center = 0``: since ``C_i`` is in [0, 1], ``eps`` then stays in the upper half between ``least`` and ``most``,
    from 0.125 to 0.1973. It moves even less, since ``confidence``, a mean over five tokens, is at most 0.2: from 0.1942
    to 0.1973. ``center = 0.9`` is the middle of the widths for these values, and a larger ``slope`` spreads them.
    ``slope = 0`` is PPO's clip at the middle of the two bounds.

    least, most: bounds of ``eps``, ``most`` at least ``least``.  slope: at least 0.  tail: in tokens, at least 1.

    Raises :class:`InputError` for ``most`` below ``least``, and ``ValueError`` without ``confidence``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"confidence"})

    least: Annotated[float, Ge(0), Le(1)] = 0.05
    most: Annotated[float, Ge(0), Le(1)] = 0.2
    slope: Annotated[FiniteFloat, Ge(0)] = 4.0
    center: FiniteFloat = 0.0
    tail: Annotated[int, Ge(1)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < self.least:
            raise InputError(f"{self.part_name()}.most = {self.most}: must be at least least = {self.least}")

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        width = x.to_tokens(trajectory=self.width(x).to(ratio.dtype))
        return torch.minimum(ratio * advantage, ratio.clamp(1 - width, 1 + width) * advantage)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        width = x.to_tokens(trajectory=self.width(x).to(ratio.dtype))
        return (ratio - ratio.clamp(1 - width, 1 + width)) * advantage > 0

    def width(self, x: Experience) -> Float[Tensor, " trajectories"]:
        """``eps`` of every trajectory."""
        if x.confidence is None:
            raise ValueError(f"{self.part_name()} needs x.confidence")
        kept = x.learnable()
        place = kept.long().cumsum(0)
        until = x.trajectory_of_token.spread(x.trajectory_of_token.max(place))
        ending = kept & (until - place < self.tail)
        total = x.trajectory_of_token.sum(torch.where(ending, x.confidence, 0.0))
        sure = total / x.trajectory_of_token.sum(ending.long()).clamp(min=1)
        return self.least + (self.most - self.least) * torch.sigmoid(self.slope * (1 - sure - self.center))
