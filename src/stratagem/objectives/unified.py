"""The policy gradient as one formula of four parts, of which the known methods are choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.objectives.ratios import GeometricMeanRatio, TokenRatio
from stratagem.parts import Aggregation, Objective

Reference = Literal["current", "old", "behavior", "sequence", "one"]
Stabilization = Literal["none", "clip", "weight"]


@dataclass(frozen=True)
class UnifiedGradient(Objective):
    """``grad = sum_t w_t 1_stable (1 / pi_ref) A grad pi``: the estimator of arXiv 2509.04419, as a loss that has it.

    Its four parts are the stabilisation mask, the reference policy in the denominator, the advantage (of the recipe)
    and the gradient of the likelihood. Since ``grad pi = pi grad log pi``, the coefficient of ``grad log pi`` is ``c =
    1_stable A pi / pi_ref``; the loss is ``-sum_t w_t sg(c_t) log pi_t``.

    | method | reference | advantage | stable |
    |---|---|---|---|
    | SFT | current | 1 | none |
    | REINFORCE | current | return | none |
    | PPO, GRPO, DAPO | old | GAE, group | clip |
    | CISPO | old | group | weight |
    | GSPO | sequence | group | clip |
    | SRFT, LUFFY, offline part | one | group of both kinds | none |

    reference: ``current`` (``pi`` itself, so ``c = A``), ``old``, ``behavior``, ``sequence`` (``pi (pi_old(y) /
    pi(y))^(1 / |y|)``, so that ``pi / pi_ref`` is the geometric mean of the trajectory's ratios), or ``one``.
    stable: ``none``; ``clip``, 0 where PPO's clip has no gradient; ``weight``, the factor by which CISPO's clip shrinks
    ``pi / pi_ref``.  low, high: distances of the bounds from 1.

    Metrics, aggregated by ``w``: ``policy_loss``; ``coefficient``, the mean of ``c``; ``clip_fraction``, the share of
    tokens that are not stable.
    """

    reference: Reference = "old"
    stable: Stabilization = "clip"
    low: Annotated[float, Ge(0)] = 0.2
    high: Annotated[float, Ge(0)] = 0.2
    aggregation: Aggregation = TokenMean()

    def needs(self) -> frozenset[str]:
        of_reference = {"old": {"old_logp"}, "sequence": {"old_logp"}, "behavior": {"behavior_logp"}}
        return super().needs() | of_reference.get(self.reference, set())

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x, "output.logp", "old_logp", "behavior_logp", "advantage")
        coefficient, stable = self.coefficients(out, x)
        loss = -self.aggregation(coefficient * out.logp, x)
        return Loss(
            loss,
            {
                "policy_loss": loss.detach(),
                "coefficient": self.aggregation(coefficient, x),
                "clip_fraction": self.aggregation((stable < 1).float(), x),
            },
        )

    def coefficients(
        self, out: PolicyOutput, x: Experience
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
        """``c`` of every token, and the stabilisation that went into it; both detached."""
        if x.advantage is None:
            raise ValueError("the unified gradient needs x.advantage; recipe.prepare(x) sets it")
        ratio = self._ratio(out, x).detach()
        stable = torch.ones_like(ratio)
        bounded = ratio.clamp(1 - self.low, 1 + self.high)
        if self.stable == "clip":
            stable = ((ratio - bounded) * x.advantage <= 0).to(ratio.dtype)
        elif self.stable == "weight":
            stable = ratio.clamp(max=1 + self.high) / ratio
        return stable * ratio * x.advantage, stable

    def _ratio(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        """``pi / pi_ref``."""
        if self.reference == "current":
            return torch.ones_like(out.logp)
        if self.reference == "one":
            return out.logp.exp()
        if self.reference == "sequence":
            return GeometricMeanRatio()(out, x)
        return TokenRatio(self.reference)(out, x)
