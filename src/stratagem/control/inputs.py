"""What a control policy reads to act again on a batch: one observation per turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.partition import rows_of


@dataclass(frozen=True, eq=False)
class ControlInputs:
    """Observations of all turns, trajectory after trajectory.

    observation: what was seen before each action.  lengths: turns per trajectory, at least 1.

    Raises ``ValueError`` when a length is below 1 or the lengths do not add up to the observations.
    """

    observation: Float[Tensor, "turns features"]
    lengths: Int[Tensor, " trajectories"]

    def __post_init__(self) -> None:
        if bool((self.lengths < 1).any()):
            raise ValueError("every trajectory needs at least one turn")
        total = int(self.lengths.sum())
        if total != len(self.observation):
            raise ValueError(f"lengths add up to {total}, there are {len(self.observation)} observations")

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        # After by_turn every turn is a trajectory, and this is called for every mini-batch.
        single = len(self.lengths) == len(self.observation)
        turns = trajectories if single else rows_of(self.lengths, trajectories)
        return type(self)(self.observation[turns], self.lengths[trajectories])

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        return type(self)(
            torch.cat([piece.observation for piece in pieces]), torch.cat([piece.lengths for piece in pieces])
        )

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(self.observation.to(device), self.lengths.to(device))

    def by_turn(self) -> Self:
        """The same observations with every turn a trajectory of its own: these policies have no memory."""
        return type(self)(self.observation, self.lengths.new_ones(len(self.observation)))
