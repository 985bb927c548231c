"""What a diffusion policy reads to judge an answer again: prompt, answer, and the masks under which it is judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DiffusionInputs:
    """A canvas for every trajectory, and the views of it that estimate its likelihood.

    The masks lie in the batch. Whoever judges it (the policy that sampled it, the one that learns, the reference) is
    shown the same ones, in every epoch, in micro-batches and after a resume; the next batch has others.

    tokens: prompt and answer. Positions after the end of an answer hold the mask token: nobody sees them.
    response: positions of the answer, its end included.  hidden, weight: the views, as in
    :class:`~stratagem.sampling.likelihoods.Views`.
    """

    tokens: Int[Tensor, "trajectories positions"]
    response: Bool[Tensor, "trajectories positions"]
    hidden: Bool[Tensor, "trajectories views positions"]
    weight: Float[Tensor, "trajectories views"]

    @property
    def lengths(self) -> Int[Tensor, " trajectories"]:
        """Positions a forward pass reads for each trajectory: those of all its views."""
        _, views, positions = self.hidden.shape
        return torch.full((len(self.tokens),), views * positions, device=self.tokens.device)

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        return type(self)(*(tensor[trajectories] for tensor in self._tensors()))

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others. Raises ``RuntimeError`` when canvas or number of views differ."""
        pieces = [piece._tensors() for piece in (self, *others)]
        return type(self)(*(torch.cat(columns) for columns in zip(*pieces, strict=True)))

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(*(tensor.to(device) for tensor in self._tensors()))

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, entry.name) for entry in dataclasses.fields(self)]
