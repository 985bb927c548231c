"""Importance ratios: the policy being trained over a reference denominator, per token or per longer unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.parts import Ratio

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to [-20, 20] before they are exponentiated."""

Denominator = Literal["old", "behavior", "reference"]


def log_ratio(out: PolicyOutput, x: Experience, denominator: Denominator = "old") -> Float[Tensor, " tokens"]:
    """``logp - old_logp`` (or ``- behavior_logp``, ``- ref_logp``), unclamped, in float32 or better.

    Without ``old_logp`` the policy has not moved since sampling: the ratio is 1 and only its gradient is left.
    """
    reference = {"old": x.old_logp, "behavior": x.behavior_logp, "reference": x.ref_logp}[denominator]
    if reference is None and denominator != "old":
        [name] = _read(denominator)
        raise ValueError(f"the ratio to the {denominator} policy needs {name}")
    return out.logp - (out.logp.detach() if reference is None else reference)


def _read(denominator: Denominator) -> frozenset[str]:
    """The field of a batch that a denominator is."""
    return frozenset({"ref_logp" if denominator == "reference" else f"{denominator}_logp"})


def bounded_exp(log_value: Tensor) -> Tensor:
    """``exp`` of a log-ratio clamped to ``LOG_RATIO_LIMIT``."""
    return log_value.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp_()


def ratio_between(score: Tensor, low: float, high: float) -> Tensor:
    """``1 - low + (low + high) sigmoid(score)``: from ``1 - low`` to ``1 + high``; exactly 1 at 0 when they are equal.

    For any finite or infinite score; far out it is exactly one of the bounds.
    """
    # By the hyperbolic tangent: 1 - low + low need not be 1 in floating point.
    return (score / 2).tanh() * ((low + high) / 2) + (1 + (high - low) / 2)


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """``rho_t = pi(a_t) / pi_ref(a_t)``, the ratio of PPO (arXiv 1707.06347).

    denominator: ``old``, the policy the update started from; or ``behavior``, the one that sampled (the "bypass" of
    engine mismatch: one gate for both effects); or ``reference``, the frozen policy the run began with.
    """

    denominator: Denominator = "old"

    def needs(self) -> frozenset[str]:
        return _read(self.denominator)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return bounded_exp(log_ratio(out, x, self.denominator))


@dataclass(frozen=True)
class ProductRatio(Ratio):
    """``prod_t rho_t`` over a unit, given to each of its tokens: the ratio of the unit as one action.

    The product is over the tokens of the unit that may train, its logarithm clamped to [-20, 20].

    unit: ``trajectory`` or ``turn``.
    """

    unit: Literal["turn", "trajectory"] = "trajectory"
    denominator: Denominator = "old"

    def needs(self) -> frozenset[str]:
        return _read(self.denominator)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        unit, log_ratios = x.level_of_token(self.unit), log_ratio(out, x, self.denominator)
        total = unit.sum(x.of_learnable(log_ratios))
        return unit.spread(bounded_exp(total))


@dataclass(frozen=True)
class GeometricMeanRatio(Ratio):
    """``s = exp(mean_t log rho_t)`` over a unit, given to each of its tokens: GSPO's ratio (arXiv 2507.18071, eq. 7).

    The mean is over the tokens of the unit that may train. Its gradient reaches each token with weight ``1 / length``.

    unit: ``trajectory`` (GSPO) or ``turn``.
    """

    unit: Literal["turn", "trajectory"] = "trajectory"
    denominator: Denominator = "old"

    def needs(self) -> frozenset[str]:
        return _read(self.denominator)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        unit, log_ratios = x.level_of_token(self.unit), log_ratio(out, x, self.denominator)
        if x.mask is None:
            return unit.spread(bounded_exp(unit.mean(log_ratios)))
        total = unit.sum(x.of_learnable(log_ratios))
        return unit.spread(bounded_exp(total / unit.sum(x.mask).clamp(min=1)))
