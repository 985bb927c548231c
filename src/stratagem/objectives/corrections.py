"""Corrections of the mismatch between the policy that sampled and the one the update starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.masking import only
from stratagem.objectives.ratios import bounded_exp
from stratagem.parts import Correction, Ratio

Unit = Literal["token", "turn", "trajectory"]
Numerator = Literal["old", "current"]


def log_behavior_ratio(out: PolicyOutput, x: Experience, numerator: Numerator = "old") -> Float[Tensor, " tokens"]:
    """``log pi_old - log mu`` of every token, or ``log pi - log mu``, detached, unclamped."""
    if x.behavior_logp is None:
        raise ValueError("a correction needs behavior_logp")
    above = out.logp.detach() if numerator == "current" or x.old_logp is None else x.old_logp
    return above - x.behavior_logp


def behavior_ratio(
    out: PolicyOutput, x: Experience, unit: Unit, numerator: Numerator = "old"
) -> Float[Tensor, " tokens"]:
    """``pi_old / mu`` of every token, or ``pi / mu``, detached; for a longer unit, the product over what may train."""
    log_weight = log_behavior_ratio(out, x, numerator)
    if unit != "token":
        level = x.level_of_token(unit)
        log_weight = level.spread(level.sum(x.of_learnable(log_weight)))
    return bounded_exp(log_weight).detach()


@dataclass(frozen=True)
class _BehaviorWeight(Correction):
    """A weight by ``pi_old / mu``."""

    def objection(self, ratio: Ratio) -> str | None:
        if getattr(ratio, "denominator", "old") == "behavior":
            return "a ratio to the behaviour policy holds pi_old / mu already"
        return None


@dataclass(frozen=True)
class TruncatedImportance(_BehaviorWeight):
    """``w = clip(pi_old / mu, low, high)``: truncated importance sampling (TIS).

    With ``high = inf`` this is the behaviour weight of decoupled PPO (arXiv 2110.00641): the behaviour policy corrects,
    the old (proximal) policy clips.

    unit: granularity of the ratio; longer units multiply their tokens.  low, high: bounds of the weight (0 and 2).
    numerator: ``old``, for the discrepancy of the engines alone; ``current`` for ``pi / mu``, which holds the
    staleness, too: for a gate that does not multiply by the ratio, such as a log-likelihood.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"learning.off_policy.importance_weights"})

    unit: Unit = "token"
    low: Annotated[float, Ge(0)] = 0.0
    high: Annotated[float, Gt(0)] = 2.0
    numerator: Numerator = "old"

    def needs(self) -> frozenset[str]:
        return frozenset({"behavior_logp"} | ({"old_logp"} if self.numerator == "old" else set()))

    def objection(self, ratio: Ratio) -> str | None:
        return super().objection(ratio) if self.numerator == "old" else None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self.part_name(), self.low, self.high)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        weight = behavior_ratio(out, x, self.unit, self.numerator)
        return weight.clamp_(self.low, None if math.isinf(self.high) else self.high)


@dataclass(frozen=True)
class MaskedImportance(_BehaviorWeight):
    """``w = (pi_old / mu) 1[low <= pi_old / mu <= high]``: masked importance sampling, IcePop (arXiv 2510.18855).

    What lies outside is removed from the surrogate; normalisers still count it.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp", "behavior_logp"})
    tags: ClassVar[frozenset[str]] = frozenset({"learning.off_policy.importance_weights"})

    unit: Unit = "token"
    low: Annotated[float, Ge(0)] = 0.5
    high: Annotated[float, Gt(0)] = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bounds(self.part_name(), self.low, self.high)

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        weight = behavior_ratio(out, x, self.unit)
        return only((weight >= self.low) & (weight <= self.high), weight)


@dataclass(frozen=True)
class DiscrepancyMask(Correction):
    """``1[|exp(mean_t log d_t) - 1| < trajectory] 1[|d_t - 1| < token]`` with ``d = pi_old / mu``, engine by engine.

    Trajectories on which the sampling and the learning engine disagree on the whole are removed, and of the others the
    tokens on which they disagree; the rest keeps its weight (HisPO, arXiv 2603.21065, eq. 8-9). The mean is over the
    tokens that may train. What is removed is still counted by normalisers. A token to which an engine gives probability
    0 is always removed. ``pi_old`` is the policy the update started from: where batches are old, their age counts as
    disagreement, too.

    trajectory, token: bounds on the disagreement, above 0; ``inf`` for none. No values were published.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp", "behavior_logp"})

    trajectory: Annotated[float, Gt(0)] = 0.01
    token: Annotated[float, Gt(0)] = 0.5

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        log_ratio, learnable, unit = log_behavior_ratio(out, x), x.learnable(), x.trajectory_of_token
        mean = unit.sum(x.of_learnable(log_ratio)) / unit.sum(learnable).clamp(min=1)
        agree = unit.spread(((bounded_exp(mean) - 1).abs() < self.trajectory).to(log_ratio.dtype))
        return agree * (((bounded_exp(log_ratio) - 1).abs() < self.token) & log_ratio.isfinite())


def _check_bounds(name: str, low: float, high: float) -> None:
    if low > high:
        raise InputError(f"{name}.low = {low}: must be at most {name}.high = {high}")
