"""Gates: what ratio and advantage become before they are added up, and whose gradient passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.ratios import bounded_exp
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
class CenteredClip(Gate):
    """``min(rho A, clip(rho, c - low, c + high) A)`` with ``c = pi_old / mu``: a clip around where the update starts.

    For ``rho = pi / mu``, the ratio to the policy that sampled. However old a token is, its ratio begins at ``c`` and
    may move as far as that of a fresh one, which has ``c = 1`` and PPO's clip (Mix-PPG, arXiv 2507.06892). A clip
    around 1 would stop the gradient of old tokens before anything has moved. Divided by ``c`` these are the bounds
    ``1 - low / c`` and ``1 + high / c`` on ``pi / pi_old``: tighter than PPO's for a token that has become likelier.

    low, high: distance of the bounds from ``c``; ``c - low`` may be negative, and then never binds.
    cap: upper bound on ``c``. A good token whose ratio begins above ``cap + high`` has no gradient. Infinity: none.

    Raises ``ValueError`` without ``behavior_logp``, and without ``old_logp`` for tokens of several versions: ``c`` is
    then unknown. Without ``old_logp``, tokens of one version are those of a policy that has not moved.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp", "behavior_logp"})

    low: Annotated[float, Ge(0)] = 0.2
    high: Annotated[float, Ge(0)] = 0.2
    cap: Annotated[float, Gt(0)] = math.inf

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return torch.minimum(ratio * advantage, self._clipped(ratio, out, x) * advantage)

    def binding(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return (ratio - self._clipped(ratio, out, x)) * advantage > 0

    def _clipped(self, ratio: Tensor, out: PolicyOutput, x: Experience) -> Tensor:
        # Where c is 1 this is PPO's clip to the last bit, which c - low and c + high are not.
        shift = self._center(out, x) - 1
        return ratio.clamp(shift + (1 - self.low), shift + (1 + self.high))

    def _center(self, out: PolicyOutput, x: Experience) -> Tensor:
        if x.behavior_logp is None:
            raise ValueError("a centered clip needs behavior_logp")
        old, version = x.old_logp, x.whole.version
        if old is None:
            if version is not None and bool((version != version[:1]).any()):
                raise ValueError("a centered clip needs old_logp for tokens of several versions")
            old = out.logp.detach()
        return bounded_exp(old - x.behavior_logp).clamp(max=self.cap)


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
