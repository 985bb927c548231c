"""A scale for entropies of tokens: -1 where the policy was most sure, 1 where it was least, 0 at a quantile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.experience import Experience
from stratagem.ordering import order_statistic

BelowPivot = Literal["negative", "positive"]

_FLOOR = 1e-8
"""Smaller entropies count as this, in nats."""

_LEAST_RANGE = 1e-4
"""A side of the pivot that is narrower, in logarithms, is not stretched: that would be rounding made large."""


@dataclass(frozen=True)
class EntropyScale:
    """``h = (log H - pivot) / (highest - pivot)`` above the pivot, ``(log H - pivot) / (pivot - lowest)`` below.

    lowest, pivot, highest: logarithms of entropies in nats, in this order. What lies beyond has ``h`` of -1 or 1.

    A deviation by which both sides could be divided first (arXiv 2509.16591) drops out.
    """

    lowest: float
    pivot: float
    highest: float

    @classmethod
    def of(cls, entropy: Float[Tensor, " tokens"], quantile: float) -> EntropyScale:
        """The scale on which these entropies fill [-1, 1], at least one of them; 0 is their nearest order statistic.

        Raises ``ValueError`` for an entropy that is not finite.
        """
        ends = torch.stack(entropy.aminmax())  # NaN when one of them is.
        if not bool(ends.isfinite().all()):
            raise ValueError(f"an entropy is not finite: {float(entropy[~entropy.isfinite()][0])}")
        place = round(quantile * (len(entropy) - 1))
        return cls(*_log(torch.stack([ends[0], order_statistic(entropy, place), ends[1]])).tolist())

    def __call__(self, entropy: Float[Tensor, "*batch"], below: BelowPivot = "negative") -> Float[Tensor, "*batch"]:
        """``h`` of each entropy, in [-1, 1]; with ``below`` positive its absolute value."""
        offset = _log(entropy).sub_(self.pivot)
        above, under = (max(side, _LEAST_RANGE) for side in (self.highest - self.pivot, self.pivot - self.lowest))
        # By clamps and not by torch.where, which on a CPU takes several times as long.
        scaled = (offset.clamp(min=0) / above).clamp_(max=1).add_((offset.clamp_(max=0) / under).clamp_(min=-1))
        return scaled if below == "negative" else scaled.abs_()

    def edges(self) -> Sequence[float]:
        """The three numbers, to remember it by."""
        return self.lowest, self.pivot, self.highest


def scaled_entropy(x: Experience, quantile: float, below: BelowPivot) -> Float[Tensor, " tokens"]:
    """``h`` of every token of a batch, or of a micro-batch on the scale of its whole.

    Entropies are those before the update (``x.entropy``), and the scale is that of all tokens of the whole that may
    train. Raises ``ValueError`` when they are missing, or one is not finite.
    """
    whole = x.whole

    def of_whole() -> Tensor:
        if whole.entropy is None:
            raise ValueError("a scale of entropies needs x.entropy")
        known = learnable_entropy(whole)
        if not len(known):
            return torch.zeros_like(whole.entropy)
        return EntropyScale.of(known, quantile)(whole.of_learnable(whole.entropy), below)

    return x.piece_of(whole.remembered(("scaled_entropy", quantile, below), of_whole))


def learnable_entropy(x: Experience) -> Float[Tensor, " learnable"]:
    """Of the tokens that may train, before the update. Raises ``ValueError`` when it is not there."""
    if x.entropy is None:
        raise ValueError("a scale of entropies needs x.entropy")
    return x.entropy if x.mask is None else x.entropy[x.mask]


def _log(entropy: Tensor) -> Tensor:
    return entropy.clamp(min=_FLOOR).log_()
