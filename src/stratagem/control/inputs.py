"""What a control policy reads to act again on a batch: one observation per turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

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
    lengths: Int[Tensor, " trajectories"] = field(metadata={"level": "trajectory"})

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
        return self._changed(lambda level, value: value[turns if level == "turn" else trajectories])

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        names = [name for name in self._levels() if getattr(self, name) is not None]
        return type(self)(**{name: torch.cat([getattr(piece, name) for piece in pieces]) for name in names})

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return self._changed(lambda _, value: value.to(device))

    def by_turn(self) -> Self:
        """The same inputs with every turn a trajectory of its own: these policies have no memory.

        What is of trajectories beside their lengths is gone.
        """
        gone: dict[str, Any] = {name: None for name, level in self._levels().items() if level == "trajectory"}
        return dataclasses.replace(self, **{**gone, "lengths": self.lengths.new_ones(len(self.observation))})

    def _changed(self, change: Callable[[str, Tensor], Tensor]) -> Self:
        """The same with every tensor there is changed, given its level."""
        values = {name: (level, getattr(self, name)) for name, level in self._levels().items()}
        changed: dict[str, Any] = {
            name: None if value is None else change(level, value) for name, (level, value) in values.items()
        }
        return type(self)(**changed)

    @classmethod
    def _levels(cls) -> dict[str, str]:
        """Of every field, whether it has a row per turn or per trajectory."""
        return {entry.name: entry.metadata.get("level", "turn") for entry in dataclasses.fields(cls)}
