"""Two losses in changing shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.parts import Objective, ObjectiveSum


@dataclass(frozen=True)
class Blend(Objective):
    """``(1 - weight) exploration + weight imitation``: one weight for a schedule to move.

    weight: ``mu``, in [0, 1]. At 0 and 1 the gradient is that of one loss alone.

    Metrics: those of both, as in a sum.
    """

    tags: ClassVar[frozenset[str]] = frozenset()

    imitation: Objective
    exploration: Objective
    weight: Annotated[float, Ge(0), Le(1)] = 0.5

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        return self._sum()(out, x)

    def has_signal(self, x: Experience) -> bool:
        return self._sum().has_signal(x)

    def _sum(self) -> ObjectiveSum:
        return ObjectiveSum(((1 - self.weight) * self.exploration, self.weight * self.imitation))
