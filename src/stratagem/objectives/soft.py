"""The loss of a policy that is to do what a critic says is worth most, and to stay random where that costs little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.parts import Aggregation, Objective


@dataclass(frozen=True)
class SoftImprovement(Objective):
    """``mean sum_a pi(a) (temperature log pi(a) - Q(a))``: the actor's loss of soft actor-critic for discrete actions.

    The sum is over all actions, so nothing of it is left to chance; its gradient is the mean of that of ``log pi(a)
    stopgrad(temperature log pi(a) - Q(a))`` over actions the policy draws. ``Q`` is ``action_values``. A critic that
    the entropy belongs to learns it by :class:`~stratagem.objectives.TemporalDifference` with a ``next_value`` that
    counts it at the same temperature (arXiv 1910.07207).

    temperature: at least 0, in units of reward per nat; rewards scaled by 30 are a temperature of 1/30.

    Metrics: ``policy_loss``; ``entropy``, the mean of ``-sum_a pi(a) log pi(a)``; ``policy_value``, of ``sum_a pi(a)
    Q(a)``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.log_probs", "output.action_values"})
    tags: ClassVar[frozenset[str]] = frozenset({"learning.family.policy_gradient"})

    temperature: Annotated[float, Ge(0)] = 1 / 30
    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x)
        if out.log_probs is None or out.action_values is None:
            raise ValueError("soft improvement needs the policy's log_probs and action_values")
        likely = out.log_probs.exp()
        surprise = (likely * out.log_probs).sum(-1)
        worth = (likely * out.action_values).sum(-1)
        loss = self.aggregation(self.temperature * surprise - worth, x)
        figures = {"entropy": -surprise.detach(), "policy_value": worth.detach()}
        means = {name: self.aggregation(values, x) for name, values in figures.items()}
        return Loss(loss, {"policy_loss": loss.detach(), **means})
