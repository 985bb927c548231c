"""What a hybrid policy reads to act again on a batch: one picture and one question per trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class HybridInputs:
    """Pictures and questions; the actions of a trajectory are its latents and, last, its answer.

    picture: colours in [0, 1].  question: the two colours asked about.  lengths: actions of each trajectory.
    """

    picture: Float[Tensor, "trajectories 3 height width"]
    question: Int[Tensor, "trajectories 2"]
    lengths: Int[Tensor, " trajectories"]

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        return type(self)(self.picture[trajectories], self.question[trajectories], self.lengths[trajectories])

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        return type(self)(
            torch.cat([piece.picture for piece in pieces]),
            torch.cat([piece.question for piece in pieces]),
            torch.cat([piece.lengths for piece in pieces]),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(self.picture.to(device), self.question.to(device), self.lengths.to(device))
