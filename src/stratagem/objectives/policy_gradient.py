"""The policy-gradient loss on its four interchangeable parts, and the loss of a critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import SequenceMean, TokenMean
from stratagem.objectives.gates import Clip
from stratagem.objectives.ratios import TokenRatio, log_ratio
from stratagem.objectives.regularizers import kl_estimate
from stratagem.parts import Aggregation, Correction, Gate, Objective, Ratio, Regularizer


@dataclass(frozen=True)
class ValueLoss(Objective):
    """``weight / 2 mean max((V - G)^2, (clip(V, V_old - clip, V_old + clip) - G)^2)``, ``G`` the advantage's target.

    weight: of this loss beside the policy's.  clip: bound on the move of a value in one update (the code released with
    arXiv 1707.06347); None: no clipping.

    It is over the tokens of ``critic_mask`` where the batch has one, else of ``mask``.

    Metrics: ``value_loss`` (unweighted) and ``value_clip_fraction``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"value", "output.value"})
    tags: ClassVar[frozenset[str]] = frozenset()

    weight: Annotated[float, Ge(0)] = 0.5
    clip: Annotated[float, Gt(0)] | None = None
    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        x = x.for_critic()
        out, x = self.blanked(out, x, "value_target")
        if out.value is None or x.value is None or x.value_target is None:
            raise ValueError("the value loss needs the policy's value, x.value and x.value_target")
        error = (out.value - x.value_target).square()
        metrics = {}
        if self.clip is not None:
            near = x.value + (out.value - x.value).clamp(-self.clip, self.clip)
            clipped = (near - x.value_target).square()
            metrics["value_clip_fraction"] = self.aggregation((clipped > error).float(), x)
            error = torch.maximum(error, clipped)
        loss = 0.5 * self.aggregation(error, x)
        return Loss(self.weight * loss, {"value_loss": loss.detach(), **metrics})


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """``L = sum_t w_t (penalty_t - c_t gate(rho_t, A_t))`` (the decomposition of arXiv 2509.04419).

    ratio: ``rho``.  gate: surrogate and trust region.  aggregation: ``w``.  correction: ``c``, 1 when None.
    regularizer: the penalty, 0 when None.  critic: a further loss for the value head, with its own aggregation.

    Metrics, additive over micro-batches: ``policy_loss``, ``regularizer`` and ``correction`` (when there is one) are
    aggregated by ``w``; means over the tokens that may train are ``clip_fraction``, ``clip_fraction_positive`` (what of
    it has a positive advantage), ``active_fraction`` (neither clipped nor removed by the correction), ``kl_old`` (k3 of
    the policy to the one the update started from), ``kl`` (k3 to the reference, where there is one), ``kl_behavior``
    (k3 of the behaviour policy to the old one, when there is a correction), ``proximal_error`` (``|log pi_old - log
    pi_version|``, where the world has recorded the latter), ``ratio``, ``entropy`` (when computed)
    and what the correction says of the tokens.

    Raises :class:`InputError` for a gate or correction that makes no sense with the ratio, with the reason.
    """

    ratio: Ratio = TokenRatio()
    gate: Gate = Clip()
    aggregation: Aggregation = SequenceMean()
    correction: Correction | None = None
    regularizer: Regularizer | None = None
    critic: ValueLoss | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in (self.gate, self.correction):
            objection = None if part is None else part.objection(self.ratio)
            if part is not None and objection is not None:
                raise InputError(f"{part.kind} {part.part_name()} with ratio {self.ratio.part_name()}: {objection}")

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        said, batch = out, x
        out, x = self.blanked(out, x, "output.logp", "old_logp", "advantage")
        if x.advantage is None:
            raise ValueError("the policy gradient needs x.advantage; recipe.prepare(x) sets it")
        weights = self.aggregation.at(x)

        def total(values: Tensor) -> Tensor:
            return (weights * values).sum()

        ratio = self.ratio(out, x)
        surrogate = self.gate(ratio, x.advantage, out, x)
        metrics, correction, judged = {}, None, dict[str, Tensor]()
        if self.correction is not None:
            correction, judged = self.correction.judge(out, x)
            surrogate = correction * surrogate
            metrics["correction"] = total(correction)
        loss = -total(surrogate)
        metrics["policy_loss"] = loss.detach()
        if self.regularizer is not None:
            penalty = total(self.regularizer(out, x))
            loss = loss + penalty
            metrics["regularizer"] = penalty.detach()
        bound = self.gate.binds(ratio.detach(), x.advantage, out, x)
        metrics |= shares(out, x, ratio.detach(), bound, correction, judged)
        if self.critic is not None:
            critic = self.critic(said, batch)
            loss, metrics = loss + critic.loss, metrics | dict(critic.metrics)
        return Loss(loss, metrics)

    def has_signal(self, x: Experience) -> bool:
        if self.regularizer is not None or self.critic is not None:
            return True
        return x.advantage is not None and bool((x.learnable() & (x.advantage != 0)).any())


@torch.no_grad()
def shares(
    out: PolicyOutput,
    x: Experience,
    ratio: Tensor,
    bound: Tensor,
    correction: Tensor | None = None,
    further: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Figures in which every token that may train counts the same, whatever the weights add up to.

    bound: tokens to be logged as ``clip_fraction``.  correction: weights, of which 0 removes a token.
    further: figures of every token, by name.
    """
    tokens = x.whole.learnable_tokens.clamp(min=1)

    def share(values: Tensor) -> Tensor:
        if values.dtype == torch.bool:
            return torch.count_nonzero(values if x.mask is None else values & x.mask) / tokens
        return x.of_learnable(values).sum() / tokens

    figures = {
        "clip_fraction": share(bound),
        "active_fraction": share(~bound if correction is None else ~bound & (correction != 0)),
        "ratio": share(ratio),
        "kl_old": share(kl_estimate(log_ratio(out, x), "k3")),
    }
    old = out.logp if x.old_logp is None else x.old_logp
    if correction is not None and x.behavior_logp is not None:
        figures["kl_behavior"] = share(kl_estimate(x.behavior_logp - old, "k3"))
    if x.version_logp is not None:
        figures["proximal_error"] = share((old - x.version_logp).abs())
    if x.advantage is not None:
        figures["clip_fraction_positive"] = share(bound & (x.advantage > 0))
    if x.ref_logp is not None:
        figures["kl"] = share(kl_estimate(out.logp - x.ref_logp, "k3"))
    if out.entropy is not None:
        figures["entropy"] = share(out.entropy)
    return figures | {name: share(values) for name, values in (further or {}).items()}
