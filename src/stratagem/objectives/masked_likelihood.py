"""The log-likelihood within a trust region: tokens that the clip would stop are left out, the others are not scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Gate


@dataclass(frozen=True)
class MaskedLogLikelihood(Gate):
    """``M A log pi``, with ``M = 0`` where PPO's clip lets no gradient pass and 1 elsewhere (arXiv 2512.01374, eq. 7).

    ``M = 0`` for ``A > 0, rho > 1 + high`` and for ``A < 0, rho < 1 - low``. Unlike the clip's, the gradient of the
    others does not contain ``rho``: how far a token is off policy is left to a correction.

    low, high: distance of the bounds from 1.
    """

    tags: ClassVar[frozenset[str]] = frozenset()

    low: Annotated[float, Ge(0)] = 0.2
    high: Annotated[float, Ge(0)] = 0.2

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return torch.where(self.binds(ratio.detach(), advantage, out, x), 0.0, advantage * out.logp)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return (ratio - ratio.clamp(1 - self.low, 1 + self.high)) * advantage > 0
