"""A regularizer as a loss of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.objectives.aggregations import SequenceMean
from stratagem.parts import Aggregation, Objective, Regularizer


@dataclass(frozen=True)
class Penalty(Objective):
    """``sum_t w_t penalty_t``: a regularizer beside a policy gradient whose weight it does not share.

    regularizer: the penalty.  aggregation: ``w``.  Metric: ``regularizer``.
    """

    tags: ClassVar[frozenset[str]] = frozenset()

    regularizer: Regularizer
    aggregation: Aggregation = SequenceMean()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x, "output.logp", "old_logp")
        loss = self.aggregation(self.regularizer(out, x), x)
        return Loss(loss, {"regularizer": loss.detach()})
