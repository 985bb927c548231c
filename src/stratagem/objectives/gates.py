"""Gates: what ratio and advantage become before they are added up, and whose gradient passes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.ratios import bounded_exp
from stratagem.parts import Gate, Ratio


@dataclass(frozen=True)
class LogLikelihood(Gate):
    """``A log pi``: the score-function surrogate of REINFORCE (Williams 1992); with ``A = 1``, maximum likelihood."""

    tags: ClassVar[frozenset[str]] = frozenset()

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
        surrogate = torch.minimum(ratio * advantage, self._clipped(ratio, x) * advantage)
        if self.dual is None:
            return surrogate
        return torch.where(advantage < 0, torch.maximum(surrogate, self.dual * advantage), surrogate)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        bound = (ratio - self._clipped(ratio, x)) * advantage > 0
        return bound if self.dual is None else bound | ((advantage < 0) & (ratio > self.dual))

    def widths(self, x: Experience) -> tuple[float | Tensor, float | Tensor]:
        """Distances of lower and upper bound from 1, of all tokens or of each."""
        return self.low, self.high

    def _clipped(self, ratio: Tensor, x: Experience) -> Tensor:
        return ratio.clamp(1 - self.low, 1 + self.high)


@dataclass(frozen=True)
class Saturating(Gate):
    """``A rho / (rho + scale)``: a ratio shaped into (0, 1), without clip (policy shaping, arXiv 2504.14945).

    Its slope ``scale / (rho + scale)^2`` is largest where the policy finds unlikely what another one did, so that such
    tokens are learned most.

    scale: in units of the ratio, above 0.
    """

    scale: Annotated[float, Gt(0)] = 0.1

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return advantage * (ratio / (ratio + self.scale))


@dataclass(frozen=True)
class ByOrigin(Gate):
    """One gate for what was sampled under the prompt it is learned under, another for what ``x.resampled`` marks.

    A batch that marks nothing is all of the first kind.

    of: the one.  resampled: the other.
    """

    of: Gate = Clip()
    resampled: Gate = Saturating()

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        plain = self.of(ratio, advantage, out, x)
        marked = _resampled(x)
        return plain if marked is None else torch.where(marked, self.resampled(ratio, advantage, out, x), plain)

    def objection(self, ratio: Ratio) -> str | None:
        return self.of.objection(ratio) or self.resampled.objection(ratio)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        plain = self.of.binds(ratio, advantage, out, x)
        marked = _resampled(x)
        return plain if marked is None else torch.where(marked, self.resampled.binds(ratio, advantage, out, x), plain)


def _resampled(x: Experience) -> Bool[Tensor, " tokens"] | None:
    """Tokens of marked trajectories; None where there are none in the whole batch."""
    return None if x.resampled is None else x.trajectory_of_token.spread(x.resampled)


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

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
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

    With bounds of their own for wrong tokens it is DISPO's weight (arXiv 2602.00983).

    low: distance of the lower bound from 1, at most 1; None for no lower clip, as CISPO runs it.
    high: distance of the upper bound; CISPO tunes it and prints no value; 4 caps the weight at 5, the value other
    trainers ship.
    wrong_low, wrong_high: the bounds of wrong tokens, None for those above; a ``wrong_low`` of 1 is no lower clip.
    wrong: what tells a wrong token, ``advantage`` (``A < 0``, token by token) or ``success`` (its trajectory has none).
    """

    low: Annotated[float, Ge(0), Le(1)] | None = None
    high: Annotated[float, Ge(0)] = 4.0
    wrong_low: Annotated[float, Ge(0), Le(1)] | None = None
    wrong_high: Annotated[float, Ge(0)] | None = None
    wrong: Literal["advantage", "success"] = "advantage"

    def needs(self) -> frozenset[str]:
        return frozenset({"success"}) if self.wrong == "success" else frozenset()

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self._clipped(ratio.detach(), self._is_wrong(advantage, x)) * advantage * out.logp

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return ratio != self._clipped(ratio, self._is_wrong(advantage, x))

    def _clipped(self, ratio: Tensor, wrong: Tensor) -> Tensor:
        low = 1.0 if self.low is None else self.low
        wrong_low = low if self.wrong_low is None else self.wrong_low
        wrong_high = self.high if self.wrong_high is None else self.wrong_high
        clipped = ratio.clamp(1 - low, 1 + self.high)
        if (wrong_low, wrong_high) == (low, self.high):
            return clipped
        return torch.where(wrong, ratio.clamp(1 - wrong_low, 1 + wrong_high), clipped)

    def _is_wrong(self, advantage: Tensor, x: Experience) -> Bool[Tensor, " tokens"]:
        if self.wrong == "advantage":
            return advantage < 0
        if x.success is None:
            raise ValueError("a clipped weight that tells wrong tokens by success needs x.success")
        return ~x.to_tokens(trajectory=x.success)


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

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return ((_target(x) - ratio) * advantage <= 0) & (advantage != 0)


def _target(x: Experience) -> Tensor:
    if x.target is None:
        raise ValueError("the gate needs x.target, which an advantage such as group_quantile_target sets")
    return x.target
