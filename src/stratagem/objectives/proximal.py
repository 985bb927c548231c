"""Proximal policies: whose log-probabilities the trust region is around, when a batch is older than the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.parts import Objective, Proximal


@dataclass(frozen=True)
class SamplingVersion(Proximal):
    """Exact: ``old_logp`` under the training engine with the weights that sampled the token, ``x.version``.

    Then ``pi_old / mu`` is the engines' discrepancy alone and ``pi / pi_old`` the staleness alone, also for a
    trajectory that several versions wrote (arXiv 2605.12070, the exact routes).

    route: ``snapshots`` keeps the weights of the last ``keep`` versions and asks each about its own tokens when the
    batch arrives; ``recorded`` takes ``x.version_logp``, which was noted while those weights were resident (by a model
    of its own, or by interrupting rollouts before each update). Both give the same numbers: one costs memory and
    passes over the batch, the other has to be done by whoever samples.
    missing: a token whose version is not kept, or that has none: ``raise`` an :class:`InputError`, or ``mask`` it.
    """

    route: Literal["snapshots", "recorded"] = "snapshots"
    keep: Annotated[int, Ge(1)] = 16
    missing: Literal["raise", "mask"] = "raise"


@dataclass(frozen=True)
class MovingAverage(Proximal):
    """``old_logp`` under averaged weights, ``sum_k beta^(t-k) theta_k / sum_k beta^(t-k)``, ``beta = W / (W + 2)``.

    The average lags ``W / 2`` optimizer steps behind, in the middle of a window of ``W``: PPO-EWMA (arXiv 2110.00641)
    as arXiv 2605.12070 revises it. ``t`` counts optimizer steps, the first weights included; a batch is judged by the
    average as it is when the batch arrives.

    window: ``W``, the staleness in optimizer steps; 0 is the policy itself.
    reset_below: the average starts over from the present weights after an update in which a smaller share of tokens
    was active (neither clipped by the gate nor removed by the correction); 0 never.
    """

    window: Annotated[float, Ge(0)] = 8.0
    reset_below: Annotated[float, Ge(0), Le(1)] = 0.9

    @property
    def decay(self) -> float:
        """``beta``."""
        return self.window / (self.window + 2) if math.isfinite(self.window) else 1.0


@dataclass(frozen=True)
class IterationStart(Proximal):
    """``old_logp`` under the policy as it was when a batch of a number divisible by ``every`` arrived, counted from 0.

    So several batches share one frozen policy, however far the learning one has moved. With 2 the second batch of each
    two is learned from the first one's start: the two steps of mirror prox from one anchor.

    every: batches to an iteration; 1 is the policy as each update starts.
    """

    every: Annotated[int, Ge(1)] = 2


@dataclass(frozen=True)
class Interpolated(Objective):
    """``of``, with ``log pi_old = alpha log mu + (1 - alpha) log pi`` at every step, detached.

    Nothing is kept and nothing asked twice; but the proximal policy follows the one it is to hold back, so that this is
    a wider clip rather than another policy: ``pi / pi_old = (pi / mu)^alpha``.

    alpha: share of the behaviour policy.
    space: ``log``, or ``probability`` for ``pi_old = alpha mu + (1 - alpha) pi``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"behavior_logp"})

    of: Objective
    alpha: Annotated[float, Ge(0), Le(1)] = 0.5
    space: Literal["log", "probability"] = "log"

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        if x.behavior_logp is None:
            raise ValueError("an interpolated proximal policy needs behavior_logp")
        return self.of(out, x.replace(old_logp=self._between(x.behavior_logp, out.logp.detach())))

    def has_signal(self, x: Experience) -> bool:
        return self.of.has_signal(x)

    def _between(self, behavior: Tensor, current: Tensor) -> Float[Tensor, " tokens"]:
        if self.space == "log":
            return torch.lerp(current, behavior.to(current.dtype), self.alpha)
        share = torch.tensor([self.alpha, 1 - self.alpha], dtype=current.dtype, device=current.device).log()
        return torch.logaddexp(behavior + share[0], current + share[1])
