"""What a language policy reads to act again on a batch: whole conversations as packed token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Int
from torch import Tensor

from stratagem.partition import rows_of


class Contexts(NamedTuple):
    """Of every trajectory that has actions what comes before its last one, packed one after the other.

    token_ids: the tokens.  lengths: how many of each such trajectory, at least 1.
    predecessors: where in ``token_ids`` the token just before each action stands.
    """

    token_ids: Int[Tensor, " tokens"]
    lengths: Int[Tensor, " trajectories"]
    predecessors: Int[Tensor, " actions"]


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Conversations packed one after the other, observations and actions interleaved, no padding.

    token_ids: every token of every trajectory, in the order the model reads them.
    lengths: tokens per trajectory.
    action_positions: where in ``token_ids`` each action token stands, ascending, in the row order of the Experience.
    The first position of a trajectory is never an action, since nothing precedes it that could predict it.
    """

    token_ids: Int[Tensor, " positions"]
    lengths: Int[Tensor, " trajectories"]
    action_positions: Int[Tensor, " tokens"]

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.token_ids):
            raise ValueError(
                f"lengths add up to {int(self.lengths.sum())}, but there are {len(self.token_ids)} token ids"
            )
        actions = self.action_positions
        if len(actions) == 0:
            return
        if bool((actions[1:] <= actions[:-1]).any()):
            raise ValueError("action_positions must ascend")
        if int(actions[0]) < 0 or int(actions[-1]) >= len(self.token_ids):
            raise ValueError(f"action_positions must lie in 0..{len(self.token_ids) - 1}")
        if bool((self.position_ids[actions] == 0).any()):
            raise ValueError("the first token of a trajectory cannot be an action")

    @property
    def actions(self) -> Int[Tensor, " tokens"]:
        """Id of every action token."""
        return self.token_ids[self.action_positions]

    @property
    def position_ids(self) -> Int[Tensor, " positions"]:
        """Position of every token in its own trajectory, from 0."""
        every = torch.arange(len(self.token_ids), device=self.token_ids.device)
        return every - torch.repeat_interleave(self._starts, self.lengths)

    @property
    def actions_per_trajectory(self) -> Int[Tensor, " trajectories"]:
        """How many action tokens each trajectory has."""
        return torch.bincount(self._trajectory_of_action, minlength=len(self.lengths))

    def before_actions(self) -> Contexts:
        """The tokens that actions are predicted from; a last action and what follows it are not among them."""
        places = self.position_ids
        lengths = torch.zeros_like(self.lengths)
        lengths.scatter_reduce_(0, self._trajectory_of_action, places[self.action_positions], "amax")
        kept = places < torch.repeat_interleave(lengths, self.lengths)
        return Contexts(self.token_ids[kept], lengths[lengths > 0], (kept.cumsum(0) - 1)[self.action_positions - 1])

    def without_opening(self, prefix: int) -> Self:
        """The same actions, with the token ``prefix`` in the place of all that was read before the first of them.

        What is read later stays. Of a trajectory without actions the prefix alone is left.
        """
        places = self.position_ids
        opening = self.lengths.clone()
        opening.scatter_reduce_(0, self._trajectory_of_action, places[self.action_positions], "amin")
        dropped = (opening - 1).clamp(min=0)
        last = places - torch.repeat_interleave(dropped, self.lengths)
        kept = last >= 0
        return type(self)(
            token_ids=torch.where(last == 0, prefix, self.token_ids)[kept],
            lengths=self.lengths - dropped,
            action_positions=(kept.cumsum(0) - 1)[self.action_positions],
        )

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        lengths, counts = self.lengths[trajectories], self.actions_per_trajectory
        shift = lengths.cumsum(0) - lengths - self._starts[trajectories]
        return type(self)(
            token_ids=self.token_ids[rows_of(self.lengths, trajectories)],
            lengths=lengths,
            action_positions=self.action_positions[rows_of(counts, trajectories)]
            + torch.repeat_interleave(shift, counts[trajectories]),
        )

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        sizes = torch.tensor([len(piece.token_ids) for piece in pieces])
        offsets = (sizes.cumsum(0) - sizes).tolist()
        return type(self)(
            token_ids=torch.cat([piece.token_ids for piece in pieces]),
            lengths=torch.cat([piece.lengths for piece in pieces]),
            action_positions=torch.cat(
                [piece.action_positions + offset for piece, offset in zip(pieces, offsets, strict=True)]
            ),
        )

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        return type(self)(self.token_ids.to(device), self.lengths.to(device), self.action_positions.to(device))

    @property
    def _starts(self) -> Int[Tensor, " trajectories"]:
        return self.lengths.cumsum(0) - self.lengths

    @property
    def _trajectory_of_action(self) -> Int[Tensor, " tokens"]:
        return torch.searchsorted(self.lengths.cumsum(0), self.action_positions, right=True)
