"""Which trajectories reach the learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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


@dataclass(frozen=True)
class Untruncated(Selection):
    """Trajectories that ended by themselves and were not cut by a limit.

    ``Masked(Untruncated())`` is overlong filtering (arXiv 2503.14476, section 3.4): what was cut trains nothing, and
    its reward still counts.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"truncated"})

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        if x.truncated is None:
            raise ValueError("a selection of what was not truncated needs x.truncated")
        return ~x.truncated


@dataclass(frozen=True)
class Masked(Selection):
    """The choice of another selection, but what that leaves out is masked instead of dropped.

    It stays in its group with its reward, so baselines and deviations over trajectories see it. None of its tokens
    trains or counts in an aggregation, or in a statistic over tokens.

    of: the selection.
    """

    of: Selection

    def __call__(self, x: Experience) -> Bool[Tensor, " trajectories"]:
        return self.of(x)

    def apply(self, x: Experience) -> Experience:
        return x.replace(mask=x.learnable() & x.to_tokens(trajectory=self(x)))
