"""What a language policy reads to act again on a batch: whole conversations as packed token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from jaxtyping import Int
from torch import Tensor

from stratagem.partition import Partition, rows_of


class Contexts(NamedTuple):
    """Of every context that has actions what comes before its last one, packed one after the other.

    token_ids: the tokens.  lengths: how many of each such context, at least 1.
    predecessors: where in ``token_ids`` the token just before each action stands.
    """

    token_ids: Int[Tensor, " tokens"]
    lengths: Int[Tensor, " contexts"]
    predecessors: Int[Tensor, " actions"]


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """Conversations packed one after the other, observations and actions interleaved, no padding.

    A trajectory is read in one context or in several: an agent that calls another, or rewrites what it remembers, acts
    in contexts that know nothing of each other. Those of a trajectory follow one another, whenever each was acted in.

    token_ids: every token of every trajectory, in the order the model reads them.
    lengths: tokens per trajectory, in all its contexts.
    action_positions: where in ``token_ids`` each action token stands, in the row order of the Experience; ascending
    within a context. The first position of a context is never an action, since nothing precedes it that could predict
    it.
    context_lengths: tokens per context, at least 1; None: every trajectory has one.
    """

    token_ids: Int[Tensor, " positions"]
    lengths: Int[Tensor, " trajectories"]
    action_positions: Int[Tensor, " tokens"]
    context_lengths: Int[Tensor, " contexts"] | None = None

    def __post_init__(self) -> None:
        if int(self.lengths.sum()) != len(self.token_ids):
            raise ValueError(
                f"lengths add up to {int(self.lengths.sum())}, but there are {len(self.token_ids)} token ids"
            )
        if self.context_lengths is not None:
            self._check_contexts(self.context_lengths)
        actions = self.action_positions
        if len(actions) == 0:
            return
        if int(actions.min()) < 0 or int(actions.max()) >= len(self.token_ids):
            raise ValueError(f"action_positions must lie in 0..{len(self.token_ids) - 1}")
        context = self._context_of_action
        if self.context_lengths is None:
            ascending = bool((actions[1:] > actions[:-1]).all())
        else:
            by_context = torch.sort(context, stable=True).indices
            ascending = bool((actions[by_context].diff() > 0).all())
            trajectory = self._trajectory_of_context[context]
            if bool((trajectory.diff() < 0).any()):
                raise ValueError("action_positions must go through the trajectories in order")
        if not ascending:
            raise ValueError("action_positions must ascend")
        if bool((self.position_ids[actions] == 0).any()):
            raise ValueError("the first token of a context cannot be an action")

    def _check_contexts(self, lengths: Tensor) -> None:
        if bool((lengths < 1).any()) or int(lengths.sum()) != len(self.token_ids):
            raise ValueError(f"context_lengths must be at least 1 and add up to {len(self.token_ids)} tokens")
        ends = lengths.cumsum(0)
        if not bool(torch.isin(self.lengths.cumsum(0)[self.lengths > 0], ends).all()):
            raise ValueError("a context must not reach from one trajectory into another")

    @property
    def actions(self) -> Int[Tensor, " tokens"]:
        """Id of every action token."""
        return self.token_ids[self.action_positions]

    @property
    def position_ids(self) -> Int[Tensor, " positions"]:
        """Position of every token in its own context, from 0."""
        lengths = self._contexts
        every = torch.arange(len(self.token_ids), device=self.token_ids.device)
        return every - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)

    @property
    def actions_per_trajectory(self) -> Int[Tensor, " trajectories"]:
        """How many action tokens each trajectory has."""
        return torch.bincount(self._trajectory_of_context[self._context_of_action], minlength=len(self.lengths))

    def before_actions(self, through: bool = False) -> Contexts:
        """The tokens that actions are predicted from; a last action and what follows it are not among them.

        through: the last action is among them; every action then stands just behind its predecessor.
        """
        places, contexts = self.position_ids, self._contexts
        lengths = torch.zeros_like(contexts)
        lengths.scatter_reduce_(0, self._context_of_action, places[self.action_positions] + through, "amax")
        kept = places < torch.repeat_interleave(lengths, contexts)
        return Contexts(self.token_ids[kept], lengths[lengths > 0], (kept.cumsum(0) - 1)[self.action_positions - 1])

    def without_opening(self, prefix: int) -> Self:
        """The same actions, with the token ``prefix`` in the place of all that was read before the first of a context.

        What is read later stays. Of a context without actions the prefix alone is left.
        """
        places, contexts = self.position_ids, self._contexts
        opening = contexts.clone()
        opening.scatter_reduce_(0, self._context_of_action, places[self.action_positions], "amin")
        dropped = (opening - 1).clamp(min=0)
        last = places - torch.repeat_interleave(dropped, contexts)
        kept = last >= 0
        lost = torch.zeros_like(self.lengths).index_add(0, self._trajectory_of_context, dropped)
        return type(self)(
            token_ids=torch.where(last == 0, prefix, self.token_ids)[kept],
            lengths=self.lengths - lost,
            action_positions=(kept.cumsum(0) - 1)[self.action_positions],
            context_lengths=None if self.context_lengths is None else self.context_lengths - dropped,
        )

    def openings(self) -> tuple[Self, Int[Tensor, " trajectories"]]:
        """What is read before the first action of a trajectory, in its first context, and whose is which.

        Equal ones are there once. All tokens of one but the first are asked about, as actions are.
        """
        places, contexts, owner = self.position_ids, self._contexts, self._trajectory_of_context
        opening = contexts.clone()
        opening.scatter_reduce_(0, self._context_of_action, places[self.action_positions], "amin")
        first = torch.ones_like(owner, dtype=torch.bool)
        first[1:] = owner[1:] != owner[:-1]
        opening = torch.where(first, opening, 0)
        lengths = torch.zeros_like(self.lengths).index_add(0, owner, opening)
        read = self.token_ids[places < torch.repeat_interleave(opening, contexts)]
        known: dict[tuple[int, ...], int] = {}
        whose = [known.setdefault(tuple(tokens.tolist()), len(known)) for tokens in read.cpu().split(lengths.tolist())]
        sizes, said = torch.tensor([*map(len, known)], dtype=torch.int64), [token for one in known for token in one]
        alone = type(self)(
            token_ids=torch.tensor(said, dtype=torch.int64),
            lengths=sizes,
            action_positions=torch.nonzero(Partition.from_sizes(sizes).position() > 0).squeeze(1),
        )
        return alone.to(self.token_ids.device), torch.tensor(whose, dtype=torch.int64, device=self.token_ids.device)

    def of_actions(self, rows: Int[Tensor, " kept"]) -> Self:
        """The same conversations, in which only the actions of these rows are asked about; rows ascend."""
        return type(self)(self.token_ids, self.lengths, self.action_positions[rows], self.context_lengths)

    def select(self, trajectories: Int[Tensor, " kept"]) -> Self:
        """The inputs of these trajectories, in this order."""
        lengths, counts = self.lengths[trajectories], self.actions_per_trajectory
        starts = self.lengths.cumsum(0) - self.lengths
        shift = lengths.cumsum(0) - lengths - starts[trajectories]
        contexts = None
        if self.context_lengths is not None:
            own = torch.bincount(self._trajectory_of_context, minlength=len(self.lengths))
            contexts = self.context_lengths[rows_of(own, trajectories)]
        return type(self)(
            token_ids=self.token_ids[rows_of(self.lengths, trajectories)],
            lengths=lengths,
            action_positions=self.action_positions[rows_of(counts, trajectories)]
            + torch.repeat_interleave(shift, counts[trajectories]),
            context_lengths=contexts,
        )

    def concatenate(self, others: Sequence[Self]) -> Self:
        """These inputs followed by the others."""
        pieces = [self, *others]
        sizes = torch.tensor([len(piece.token_ids) for piece in pieces])
        offsets = (sizes.cumsum(0) - sizes).tolist()
        several = any(piece.context_lengths is not None for piece in pieces)
        return type(self)(
            token_ids=torch.cat([piece.token_ids for piece in pieces]),
            lengths=torch.cat([piece.lengths for piece in pieces]),
            action_positions=torch.cat(
                [piece.action_positions + offset for piece, offset in zip(pieces, offsets, strict=True)]
            ),
            context_lengths=torch.cat([c[c > 0] for c in (p._contexts for p in pieces)]) if several else None,
        )

    def to(self, device: torch.device | str) -> Self:
        """The same inputs on another device."""
        contexts = None if self.context_lengths is None else self.context_lengths.to(device)
        return type(self)(
            self.token_ids.to(device), self.lengths.to(device), self.action_positions.to(device), contexts
        )

    @property
    def _contexts(self) -> Int[Tensor, " contexts"]:
        return self.lengths if self.context_lengths is None else self.context_lengths

    @property
    def _context_of_action(self) -> Int[Tensor, " tokens"]:
        return torch.searchsorted(self._contexts.cumsum(0), self.action_positions, right=True)

    @property
    def _trajectory_of_context(self) -> Int[Tensor, " contexts"]:
        if self.context_lengths is None:
            return torch.arange(len(self.lengths), device=self.lengths.device)
        return torch.searchsorted(self.lengths.cumsum(0), self.context_lengths.cumsum(0) - 1, right=True)
