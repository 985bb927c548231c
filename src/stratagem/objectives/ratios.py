"""Importance ratios: the policy being trained over a reference denominator, per token or per longer unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Ratio

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to [-20, 20] before they are exponentiated."""

Denominator = Literal["old", "behavior"]


def log_ratio(out: PolicyOutput, x: Experience, denominator: Denominator = "old") -> Float[Tensor, " tokens"]:
    """``logp - old_logp`` (or ``- behavior_logp``), unclamped, in float32 or better.

    Without ``old_logp`` the policy has not moved since sampling: the ratio is 1 and only its gradient is left.
    """
    reference = x.old_logp if denominator == "old" else x.behavior_logp
    if reference is None:
        reference = out.logp.detach()
    return out.logp - reference


def bounded_exp(log_value: Tensor) -> Tensor:
    """``exp`` of a log-ratio clamped to ``LOG_RATIO_LIMIT``."""
    return log_value.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """``rho_t = pi(a_t) / pi_ref(a_t)``, the ratio of PPO (arXiv 1707.06347).

    denominator: ``old``, the policy the update started from; or ``behavior``, the one that sampled (the "bypass" of
    engine mismatch: one gate for both effects).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp"})

    denominator: Denominator = "old"

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return bounded_exp(log_ratio(out, x, self.denominator))


@dataclass(frozen=True)
class GeometricMeanRatio(Ratio):
    """``s = exp(mean_t log rho_t)`` over a unit, given to each of its tokens: GSPO's ratio (arXiv 2507.18071, eq. 7).

    The mean is over the tokens of the unit that may train. Its gradient reaches each token with weight ``1 / length``.

    unit: ``trajectory`` (GSPO) or ``turn``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp"})

    unit: Literal["turn", "trajectory"] = "trajectory"
    denominator: Denominator = "old"

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        unit, learnable = x.level_of_token(self.unit), x.learnable()
        total = unit.sum(torch.where(learnable, log_ratio(out, x, self.denominator), 0.0))
        return unit.spread(bounded_exp(total / unit.sum(learnable).clamp(min=1)))
