"""The loss of a critic that is read where steps end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import TokenMean
from stratagem.parts import Aggregation, Objective


@dataclass(frozen=True)
class StepValueLoss(Objective):
    """``weight mean_u (v_u - Q_u)^2`` over turns ``u``, with ``v_u`` the critic's value once turn ``u`` has been read.

    ``Q_u`` is ``x.value_target`` at the last token of the turn; other tokens do not count. As in a critic's loss it is
    over the tokens of ``critic_mask`` where the batch has one, else of ``mask``.

    weight: of this loss beside the policy's.  range: ``signed`` squeezes the value to (-1, 1) by ``tanh`` (arXiv
    2405.03553); ``free`` takes it as it is.  aggregation: over the last tokens of turns.

    Metrics: ``step_value_loss`` (unweighted).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"output.value_after"})

    weight: Annotated[float, Ge(0)] = 0.1
    range: Literal["signed", "free"] = "signed"
    aggregation: Aggregation = TokenMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        x = x.for_critic()
        x = x.masked(x.whole.turn_of_token.is_last(), "ends of turns")
        out, x = self.blanked(out, x, "value_target")
        if out.value_after is None or x.value_target is None:
            raise ValueError("the loss of step values needs the policy's value_after and x.value_target")
        value = out.value_after.tanh() if self.range == "signed" else out.value_after
        loss = self.aggregation((value - x.value_target).square(), x)
        return Loss(self.weight * loss, {"step_value_loss": loss.detach()})
