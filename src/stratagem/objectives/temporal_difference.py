"""The loss of policies that act by what their actions are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.parts import Aggregation, Objective


@dataclass(frozen=True)
class TemporalDifference(Objective):
    """``mean (r_t + discount^tau Q'_{t+1} - Q_t)^2``: ``value_after`` is ``Q_t``, ``next_value``, the target's, ``Q'``.

    ``tau`` is how long the turn took (``turn_duration``), 1 as a rule.

    A turn is one action, and ``r_t`` what it earned, whatever tokens it has. Of a team every agent's token has the
    team's ``Q`` and what the team earned (:class:`~stratagem.rewards.TeamReward`), so the mean over tokens is the mean
    over turns of the game.

    discount: in [0, 1].  Metrics: ``td_error``, the mean of ``|r_t + discount Q'_{t+1} - Q_t|``, and ``action_value``,
    the mean of ``Q_t``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.value_after", "output.next_value"})
    whole_groups: ClassVar[bool] = True
    tags: ClassVar[frozenset[str]] = frozenset()

    discount: Annotated[float, Ge(0), Le(1)] = 0.99
    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x)
        if out.value_after is None or out.next_value is None:
            raise ValueError("a temporal difference needs the policy's value_after and next_value")
        earned = x.to_tokens(turn=x.turn_rewards()).to(out.value_after.dtype)
        rate = x.turn_discounts(self.discount)
        to_come = (x.turn_of_token.spread(rate) if isinstance(rate, Tensor) else rate) * out.next_value
        error = earned + to_come - out.value_after
        loss = self.aggregation(error.square(), x)
        figures = {"td_error": error.detach().abs(), "action_value": out.value_after.detach()}
        return Loss(loss, {name: self.aggregation(values, x) for name, values in figures.items()})
