"""Which trajectories reach the learner."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Selection


@dataclass(frozen=True)
class AboveReturn(Selection):
    """Trajectories whose return is at least ``threshold``: rejection sampling."""

    threshold: float = 1.0

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        return x.returns >= self.threshold
