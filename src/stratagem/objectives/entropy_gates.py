"""Gates that treat tokens by how sure the policy was of them: wider clips, and advantages that count more or less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.entropy_scale import BelowPivot, scaled_entropy
from stratagem.experience import Experience, PolicyOutput
from stratagem.masking import only
from stratagem.objectives.gates import Clip
from stratagem.parts import Gate, Ratio


@dataclass(frozen=True)
class EntropyClip(Clip):
    """PPO's clip with ``high (1 + widening h)`` where ``h > 0`` and ``low (1 + widening |h|)`` elsewhere.

    ``h`` in [-1, 1] is the scaled entropy of the token (:class:`~stratagem.entropy_scale.EntropyScale`): a token of
    which the policy was unsure may become likelier by more, one of which it was sure less likely by more; the other
    bound stays. (HAPO's asymmetric adaptive clipping, arXiv 2509.16591; formula and numbers of its released code.)

    Entropies are those of the policy the update starts from, on the scale of the whole batch or mini-batch, so that the
    size of micro-batches changes no number; the released code takes the present ones, on the scale of the micro-batch.

    widening: 0 is :class:`Clip`.  quantile: of the logarithms of entropies, where ``h`` is 0.
    below: sign of ``h`` below it. ``positive`` is what the released code computes, where its paper's figure has
    negative ones: then all tokens count as unsure, and no lower bound is widened.

    Raises ``ValueError`` when entropies are missing, or one of a token that may train is not finite.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    widening: Annotated[float, Ge(0)] = 1.0
    quantile: Annotated[float, Ge(0), Le(1)] = 0.8
    below: BelowPivot = "negative"

    def widths(self, x: Experience) -> tuple[float | Tensor, float | Tensor]:
        return self._bounds(x)

    def _clipped(self, ratio: Tensor, x: Experience) -> Tensor:
        low, high = self._bounds(x)
        return torch.minimum(torch.maximum(ratio, (1 - low).to(ratio.dtype)), (1 + high).to(ratio.dtype))

    def _bounds(self, x: Experience) -> tuple[Tensor, Tensor]:
        place = scaled_entropy(x, self.quantile, self.below)
        sure, unsure = (-place).relu_(), place.relu()
        return sure.mul_(self.low * self.widening).add_(self.low), unsure.mul_(self.high * self.widening).add_(
            self.high
        )


@dataclass(frozen=True)
class Redistributed(Gate):
    """Another clip with ``A (1 + strength h)`` for ``A`` where a token moves and is unsure, or neither.

    ``h`` in [-1, 1] is the scaled entropy of the token, as in :class:`EntropyClip`. A token moves when its ratio has
    left the inner half of the clip's range, ``1 - low / 2 < rho < 1 + high / 2``. Where ``h > 0`` and it moves, ``A``
    counts more; where ``h <= 0`` and it does not, ``A`` counts less; otherwise ``A`` stays. The factor has no gradient.
    At ratio 1 only tokens of which the policy was sure are damped, those it was surest of to 0 when ``strength`` is 1.
    (HAPO's differential advantage redistribution, arXiv 2509.16591; formula and numbers of its released code.)

    of: the clip.  strength: 0 is that clip alone.  quantile, below: as in :class:`EntropyClip`; with ``below``
    positive no token is ever damped.

    ``clip_fraction`` counts the tokens that the clip holds. Raises ``ValueError`` as :class:`EntropyClip` does.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"entropy"})

    of: Clip = Clip()
    strength: Annotated[float, Ge(0), Le(1)] = 1.0
    quantile: Annotated[float, Ge(0), Le(1)] = 0.8
    below: BelowPivot = "negative"

    def objection(self, ratio: Ratio) -> str | None:
        return self.of.objection(ratio)

    def __call__(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        return self.of(ratio, self._redistributed(ratio, advantage, x), out, x)

    def binds(self, ratio: Tensor, advantage: Tensor, out: PolicyOutput, x: Experience) -> Bool[Tensor, " tokens"]:
        return self.of.binds(ratio, self._redistributed(ratio, advantage, x), out, x)

    def _redistributed(self, ratio: Tensor, advantage: Tensor, x: Experience) -> Tensor:
        if self.strength == 0:
            return advantage
        place = scaled_entropy(x, self.quantile, self.below)
        low, high = self.of.widths(x)
        moved = ratio.detach() - 1
        moves = (moved <= -low / 2) | (moved >= high / 2)
        return advantage + self.strength * advantage * only((place > 0) == moves, place)
