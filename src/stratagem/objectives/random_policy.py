"""A regression of log-probabilities on the value of acting at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.objectives.ratios import log_ratio
from stratagem.parts import Aggregation, Objective


@dataclass(frozen=True)
class RandomPolicyRegression(Objective):
    """``sum_t w_t (Q_t - sg(A_t + V_{t+1}))^2``: the policy learns values of the uniform policy (arXiv 2509.24981).

    ``Q_t = scale (log pi(a_t) - log pi_old(a_t))`` is a value relative to the old policy, and ``V_{t+1} = scale mean_a
    (log pi(a | s_{t+1}) - log pi_old(a | s_{t+1}))`` that of choosing uniformly in the next state; 0 after the last
    token of a trajectory. The target carries no gradient. On policy both are 0, and the gradient is ``-2 scale`` times
    that of ``sum_t w_t A_t log pi(a_t)``.

    scale: ``rho`` of the paper, above 0, in units of reward per nat; the paper's 1 did best, at 0.1 entropy collapsed.
    next_value: weight of ``V``; the paper's is 1, and 0 leaves a regression on the advantage alone.
    aggregation: ``w``.

    Metrics: ``policy_loss``, and ``relative_value``, the mean of ``Q``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_mean_logp", "output.mean_logp"})

    scale: Annotated[float, Gt(0)] = 1.0
    next_value: Annotated[float, Ge(0)] = 1.0
    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x, "output.logp", "old_logp", "advantage")
        if x.advantage is None or out.mean_logp is None:
            raise ValueError("the regression needs x.advantage and the policy's mean_logp")
        value = self.scale * log_ratio(out, x)
        target = (x.advantage + self.next_value * self._following(out.mean_logp.detach(), x)).detach()
        loss = self.aggregation((value - target).square(), x)
        relative = self.aggregation(value.detach(), x)
        return Loss(loss, {"policy_loss": loss.detach(), "relative_value": relative})

    def _following(self, mean_logp: Tensor, x: Experience) -> Float[Tensor, " tokens"]:
        """``V`` of the state after each token: that of the trajectory's next token that may train."""
        following = torch.zeros_like(mean_logp)
        if x.old_mean_logp is None:
            return following
        value = self.scale * (mean_logp - x.old_mean_logp)
        kept, trajectory = torch.nonzero(x.learnable()).squeeze(1), x.trajectory_of_token.labels
        now, then = kept[:-1], kept[1:]
        together = trajectory[now] == trajectory[then]
        following[now[together]] = value[then[together]]
        return following
