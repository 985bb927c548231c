"""Learning under a bound on the ratio: the exact solution for a table, and the loss that regresses to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.objectives.policy_gradient import ValueLoss, shares
from stratagem.objectives.ratios import TokenRatio, ratio_between
from stratagem.parts import Aggregation, Objective, Ratio, Regularizer


def best_bounded_policy(
    probability: Float[Tensor, "states actions"], value: Float[Tensor, "states actions"], low: float, high: float
) -> Float[Tensor, "states actions"]:
    """``argmax_pi sum_a pi(a | s) Q(s, a)`` with ``1 - low <= pi / pi_0 <= 1 + high``, for every state of a table.

    Actions whose value lies above a quantile of ``Q(s, .)`` under ``pi_0`` take the upper ratio, those below it the
    lower one; the action (or the equals) on it takes the ratio at which the probabilities add up to 1. The quantile has
    ``low / (low + high)`` of the probability above it: for equal bounds it is the median (arXiv 2604.18578).

    probability: ``pi_0``, rows that add up to 1.  value: ``Q``, or an advantage: only its order counts.
    low: in [0, 1).  high: at least 0. With either at 0, ``pi_0`` itself.

    Raises ``ValueError`` for a bound out of range.
    """
    if not (0 <= low < 1 and high >= 0):
        raise ValueError(f"low must lie in [0, 1) and high be at least 0, got {low} and {high}")
    if low + high == 0:
        return probability.clone()
    better = value.unsqueeze(-2) > value.unsqueeze(-1)
    equal = value.unsqueeze(-2) == value.unsqueeze(-1)
    before, own = [(probability.unsqueeze(-2) * which).sum(-1) for which in (better, equal)]
    raised = ((low / (low + high) - before) / own.clamp(min=torch.finfo(own.dtype).tiny)).clamp(0, 1)
    return probability * (1 - low + (low + high) * raised)


@dataclass(frozen=True)
class BoundedRatio(Objective):
    """``mean |(rho - target) A|`` with ``target = 1 - bound + 2 bound sigmoid((Q - u) / temperature)``.

    Bounded policy optimization (arXiv 2604.18578): the best policy whose ratio stays within ``1 +- bound`` makes
    actions above the median of ``Q(s, .)`` more likely by the whole bound and the others less
    (:func:`best_bounded_policy`); the loss regresses the ratio to that, weighted by ``|A|``. Inside the bound it is
    PPO's clipped loss, but for the median; beyond it the gradient does not vanish, it points back.

    ``Q`` is ``x.value_target`` (with :class:`~stratagem.advantages.GAE`, its lambda-return), ``A = Q - V`` with the
    critic's *present* value, ``u`` its present median; target and ``A`` are detached, and nothing is normalised, so
    ``temperature`` is in units of the return. ``u`` learns by ``median_weight mean log 2 cosh((Q - u) / 2)``, an
    absolute error with a rounded tip, ``V`` by ``critic``, whose weight of 1 is a coefficient 0.5 of the squared error.

    center: ``median``, or ``mean`` for the released code's ablation, in which ``V`` takes the place of ``u``.
    ratio, aggregation, regularizer: as in :class:`PolicyGradient`.

    Metrics: ``policy_loss``, ``median_loss`` (unweighted), those of the critic and of ``regularizer``, and shares of
    tokens as in :class:`PolicyGradient`; ``clip_fraction`` counts the tokens that are pulled against their advantage.

    Raises ``ValueError`` when the value target of a token that may train is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.value"})
    tags: ClassVar[frozenset[str]] = frozenset(
        {"learning.family.policy_gradient", "learning.data.all_solutions", "learning.off_policy.importance_weights"}
    )

    bound: Annotated[float, Gt(0), Lt(1)] = 0.3
    temperature: Annotated[float, Gt(0)] = 1e-3
    center: Literal["median", "mean"] = "median"
    median_weight: Annotated[float, Ge(0)] = 0.5
    ratio: Ratio = TokenRatio()
    aggregation: Aggregation = TokenMean()
    critic: ValueLoss = ValueLoss(weight=1.0)
    regularizer: Regularizer | None = None

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"output.median"} if self.center == "median" else set())

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x, "output.logp", "output.median", "old_logp", "value_target")
        center = out.median if self.center == "median" else out.value
        if out.value is None or center is None or x.value_target is None:
            raise ValueError(f"the bounded ratio needs the policy's value and {self.center}, and x.value_target")
        if not bool(x.value_target.isfinite().all()):
            bad = int(torch.nonzero(~x.value_target.isfinite())[0])
            raise ValueError(
                f"the bounded ratio needs finite value targets; token {bad} has {float(x.value_target[bad])}"
            )
        above = x.value_target - center
        target = ratio_between(above.detach() / self.temperature, self.bound, self.bound)
        advantage = x.value_target - out.value.detach()
        ratio = self.ratio(out, x)
        loss = self.aggregation(((ratio - target) * advantage).abs(), x)
        metrics = {"policy_loss": loss.detach()}
        if self.center == "median":
            median_loss = self.aggregation(torch.nn.functional.softplus(above) - above / 2, x)
            loss, metrics["median_loss"] = loss + self.median_weight * median_loss, median_loss.detach()
        if self.regularizer is not None:
            penalty = self.aggregation(self.regularizer(out, x), x)
            loss, metrics["regularizer"] = loss + penalty, penalty.detach()
        critic = self.critic(out, x)
        against = (target - ratio.detach()) * advantage <= 0
        metrics |= shares(out, x, ratio.detach(), against)
        return Loss(loss + critic.loss, metrics | dict(critic.metrics))
