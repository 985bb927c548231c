"""Regularizers: penalties on what the policy says, per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives.ratios import log_ratio
from stratagem.parts import Regularizer

KLEstimator = Literal["k1", "k2", "k3", "abs"]
Anchor = Literal["reference", "previous", "old"]


def kl_estimate(log_ratio: Float[Tensor, " tokens"], estimator: KLEstimator) -> Float[Tensor, " tokens"]:
    """Estimate of ``KL(pi || ref)`` from a sample of ``pi``, with ``d = log pi - log ref``.

    ``k1 = d`` (unbiased, may be negative); ``k2 = d^2 / 2`` (biased, low variance);
    ``k3 = exp(-d) - 1 + d`` (unbiased, never negative). ``d`` is clamped to [-20, 20] in the exponential.
    ``abs = |d|`` estimates no KL: it is how far a token has moved, with a gradient of one size however far that is.
    """
    if estimator == "abs":
        return log_ratio.abs()
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return log_ratio.clamp(-20, 20).neg_().expm1_() + log_ratio


@dataclass(frozen=True)
class KL(Regularizer):
    """KL to another policy as a term of the loss, differentiated through ``logp``.

    What its gradient does on policy depends on the estimator: that of ``k2`` is the gradient of ``KL(pi || ref)``;
    that of ``k1`` is zero in expectation; that of ``k3`` is the gradient of ``KL(ref || pi)``. On tokens that an older
    policy sampled none of the three estimates that KL.

    to: ``reference``, the frozen policy; ``previous``, the one that the update before started from; or ``old``, the one
    this update started from, to which it is 0 in a batch's first update.
    unit: what ``d`` is the log-ratio of. For ``turn`` and ``trajectory`` it is summed over their tokens that may train,
    and the estimate is given to each of them.
    """

    estimator: KLEstimator = "k3"
    unit: Literal["token", "turn", "trajectory"] = "token"
    to: Anchor = "reference"

    def needs(self) -> frozenset[str]:
        return frozenset({"ref_logp" if self.to == "reference" else f"{self.to}_logp"})

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        moved = self._log_ratio(out, x)
        if self.unit == "token":
            return kl_estimate(moved, self.estimator)
        unit = x.level_of_token(self.unit)
        total = unit.sum(x.of_learnable(moved))
        return unit.spread(kl_estimate(total, self.estimator))

    def _log_ratio(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if self.to == "old":
            return log_ratio(out, x)
        anchor = x.ref_logp if self.to == "reference" else x.previous_logp
        if anchor is None:
            raise ValueError(f"the KL regularizer needs {'ref' if self.to == 'reference' else 'previous'}_logp")
        return out.logp - anchor


@dataclass(frozen=True)
class FullKL(Regularizer):
    """``KL(pi || ref) = sum_v pi(v) (log pi(v) - log ref(v))`` over the whole vocabulary, at every token.

    No estimate: it is as right on tokens that somebody else chose. It holds a row of the vocabulary for every token,
    of policy and reference (4 bytes each and once more for the gradient), so it is for short answers or small
    vocabularies.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"ref_log_probs", "output.log_probs"})

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if out.log_probs is None or x.ref_log_probs is None:
            raise ValueError("the full KL needs the policy's log_probs and ref_log_probs")
        # What neither of two policies ever does has no logarithm and adds nothing.
        possible = out.log_probs > -torch.inf
        logp = torch.where(possible, out.log_probs, 0.0)
        reference = torch.where(possible, x.ref_log_probs, 0.0)
        return (logp.exp() * possible * (logp - reference)).sum(-1)


@dataclass(frozen=True)
class BlendedPenalty(Regularizer):
    """``share * first + (1 - share) * second``: one penalty giving way to another while ``share`` moves."""

    first: Regularizer
    second: Regularizer
    share: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.share * self.first(out, x) + (1 - self.share) * self.second(out, x)


@dataclass(frozen=True)
class Surprisal(Regularizer):
    """``-log pi`` of every token that was sampled: over some of them, maximum likelihood of these.

    ``Penalty(Surprisal(), Credited(TokenMean(), above=0))`` imitates all that had a positive advantage, and all
    of it alike.
    """

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return -out.logp


@dataclass(frozen=True)
class EntropyBonus(Regularizer):
    """``-H(pi)`` at every token: with a positive factor, a reward for staying random."""

    requires: ClassVar[frozenset[str]] = frozenset({"output.entropy"})

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        if out.entropy is None:
            raise ValueError("the entropy bonus needs the policy's entropy")
        return -out.entropy
