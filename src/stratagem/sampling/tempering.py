"""Temperatures that change from token to token."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le, Lt
from jaxtyping import Float
from torch import Tensor

from stratagem.entropy_scale import BelowPivot, EntropyScale, learnable_entropy
from stratagem.experience import Experience
from stratagem.parts import Tempering


@dataclass(frozen=True)
class EntropyTempering(Tempering):
    """Factor ``1 + strength h`` of the temperature: warmer where the policy is unsure, cooler where it is sure.

    ``h`` in [-1, 1] is the scaled entropy of the next token
    (:class:`~stratagem.entropy_scale.EntropyScale`) on the scale of the batch before: of the tokens that reached the
    learner, entropies before the update. It is remembered; in a run's first batch the factor is 1. (HAPO's adaptive
    temperature sampling, arXiv 2509.16591; formula and numbers of its released code.)

    strength: in [0, 1).  quantile: of the logarithms of entropies, where ``h`` is 0.  below: as in
    :class:`~stratagem.objectives.EntropyClip`; ``positive`` never cools.

    Raises ``ValueError`` when a batch has no entropies, or one of a token that may train is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    strength: Annotated[float, Ge(0), Lt(1)] = 0.05
    quantile: Annotated[float, Ge(0), Le(1)] = 0.8
    below: BelowPivot = "negative"
    _memory: dict[str, Tensor] = field(
        default_factory=lambda: {"scale": torch.full((3,), math.nan, dtype=torch.float64)},
        init=False,
        repr=False,
        compare=False,
    )

    def memory(self) -> dict[str, Tensor]:
        return self._memory

    def before_steps(self, x: Experience) -> Experience:
        entropy = learnable_entropy(x)
        if len(entropy):
            edges = EntropyScale.of(entropy, self.quantile).edges()
            self._memory["scale"].copy_(torch.tensor(edges, dtype=torch.float64))
        return x

    def __call__(self, entropy: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        lowest, pivot, highest = self._memory["scale"].tolist()
        if math.isnan(pivot):
            return torch.ones_like(entropy)
        return 1 + self.strength * EntropyScale(lowest, pivot, highest)(entropy, self.below)
