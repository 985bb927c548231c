"""Gates: what ratio and advantage become before they are added up, and whose gradient passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Gate


@dataclass(frozen=True)
class LogLikelihood(Gate):
    """``A log pi``: the score-function surrogate of REINFORCE (Williams 1992); with ``A = 1``, maximum likelihood."""

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return advantage * out.logp


@dataclass(frozen=True)
class Unclipped(Gate):
    """``rho A``: importance-weighted policy gradient without a trust region."""

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return ratio * advantage


@dataclass(frozen=True)
class Clip(Gate):
    """``min(rho A, clip(rho, 1 - low, 1 + high) A)``: PPO's pessimistic clip (arXiv 1707.06347, eq. 7).

    The gradient is zero exactly where ``A > 0, rho > 1 + high`` or ``A < 0, rho < 1 - low``. Unequal bounds are DAPO's
    clip-higher (arXiv 2503.14476).

    low, high: distance of the bounds from 1.  dual: ``c > 1`` adds the dual clip ``max(., c A)`` for ``A < 0``
    (arXiv 1912.09729), which stops the gradient of a bad action at ``rho > c``; None: no dual clip.
    """

    low: Annotated[float, Ge(0)] = 0.2
    high: Annotated[float, Ge(0)] = 0.2
    dual: Annotated[float, Gt(1)] | None = None

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - self.low, 1 + self.high) * advantage)
        if self.dual is None:
            return surrogate
        return torch.where(advantage < 0, torch.maximum(surrogate, self.dual * advantage), surrogate)

    def binds(self, ratio: Tensor, advantage: Tensor) -> Bool[Tensor, " tokens"]:
        bound = (ratio - ratio.clamp(1 - self.low, 1 + self.high)) * advantage > 0
        return bound if self.dual is None else bound | ((advantage < 0) & (ratio > self.dual))


@dataclass(frozen=True)
class ClippedWeight(Gate):
    """``sg(clip(rho, 1 - low, 1 + high)) A log pi``: CISPO (arXiv 2506.13585, eq. 4). Every token keeps a gradient.

    low: None for no lower clip, as the paper runs it.  high: the paper tunes it and prints no value; 4 caps the weight
    at 5, the value other trainers ship.
    """

    low: Annotated[float, Ge(0)] | None = None
    high: Annotated[float, Ge(0)] = 4.0

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return ratio.detach().clamp(self._lowest(), 1 + self.high) * advantage * out.logp

    def binds(self, ratio: Tensor, advantage: Tensor) -> Bool[Tensor, " tokens"]:
        return ratio != ratio.clamp(self._lowest(), 1 + self.high)

    def _lowest(self) -> float:
        return 0.0 if self.low is None else 1 - self.low


@dataclass(frozen=True)
class TowardsTarget(Gate):
    """``-|rho - target| |A|``: pulls every ratio to ``x.target``, from either side, by the size of its advantage.

    ``x.target`` is set where credit is given, by an advantage that says it, such as
    :class:`~stratagem.advantages.GroupQuantileTarget`. At a ratio of 1 the gradient is that of ``rho A`` where target
    and advantage point the same way; at the target itself it is 0, and beyond it points back (arXiv 2604.18578).

    Raises ``ValueError`` when there is no target.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"target"})

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return -(ratio - _target(x)).abs() * advantage.abs()

    def binds_in(self, ratio: Tensor, advantage: Tensor, x: Experience) -> Bool[Tensor, " tokens"]:
        return ((_target(x) - ratio) * advantage <= 0) & (advantage != 0)


def _target(x: Experience) -> Tensor:
    if x.target is None:
        raise ValueError("the gate needs x.target, which an advantage such as group_quantile_target sets")
    return x.target
