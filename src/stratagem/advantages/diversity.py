"""An advantage that pays good answers of a group for lying far from its others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.partition import CACHED
from stratagem.parts import Advantage

# Odd numbers as signed 64-bit integers, near 2^64 over the golden ratio and of splitmix64 (multiplicative hashing).
_SPREAD, _MIX, _APART = 0x9E3779B97F4A7C15 - 2**64, 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class DiversityBonus(Advantage):
    """``A_i + strength (d_i - mean d)`` for answers with ``R_i >= mean R``: of good answers the unusual gain more.

    ``d_i = 1 - cos(v_i, sum_j v_j)`` is the distance of an answer from the middle of its group, in [0, 2], with ``v_i``
    of length 1; ``mean d`` is over all of the group. So an answer below the mean is never paid for being different. A
    group whose returns are all the same keeps its ``A``, for there nobody is better than the worst.

    ``v_i`` counts the answer's tokens that may train, alone and in pairs of neighbours, hashed with signs into
    ``width`` numbers: it knows which tokens were written and nothing of what they mean, needs no model, and is the same
    in every process. An answer without such a token has ``d_i = 1``.

    Written after arXiv 2509.04575, which adds such a bonus by an embedding of answers; its formula, its ``strength``
    and its embedding were not available. All three are reconstructions.

    of: the advantage it is added to.  strength: 0 is ``of``.  width: in [1, 2^24].

    Raises ``ValueError`` when actions are missing, or no numbers of tokens.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"action"})
    minimum_group: ClassVar[int] = 2

    of: Advantage = GroupStandardized()
    strength: Annotated[float, Ge(0)] = 0.1
    width: Annotated[int, Ge(1), Le(2**24)] = 256

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self.of(x)
        if self.strength == 0:
            return credit
        group, returns = x.group_of_trajectory, x.returns.double()
        distance = group_distance(x, self.width)
        # The mean of numbers may be a rounding above all of them.
        slack = 1e-9 * returns.abs()
        paid = (returns >= group.spread(group.mean(returns)) - slack) & group.spread(
            group.max(returns) > group.min(returns)
        )
        addend = torch.where(paid, self.strength * group.center(distance), 0.0)
        return x.of_learnable(credit + x.to_tokens(trajectory=addend.to(credit.dtype)))


def group_distance(x: Experience, width: int = 256) -> Float[Tensor, " trajectories"]:
    """Of every trajectory ``1 - cos(v_i, sum_j v_j)`` over its group, as :class:`DiversityBonus` says; float64."""
    counts = _token_counts(x, width)
    unit = counts / counts.norm(dim=1, keepdim=True).clamp(min=1e-12)
    group = x.group_of_trajectory
    middle = group.spread(group.sum(unit))
    cosine: Tensor = (unit * middle).sum(1) / middle.norm(dim=1).clamp(min=1e-12)
    return 1 - cosine


def _token_counts(x: Experience, width: int) -> Float[Tensor, "trajectories width"]:
    """Counts of tokens and of neighbouring pairs, as far as they may train, hashed with signs."""
    if x.action is None or x.action.ndim != 1 or x.action.is_floating_point():
        raise ValueError("a diversity bonus needs x.action, and actions that are numbers of tokens")
    labels, cells = x.trajectory_of_token.labels, 2 * width
    counts = torch.zeros(x.trajectories * cells, dtype=torch.int64, device=x.device)
    for begin in range(0, x.tokens, CACHED):
        # One token more, with which the last one of the block is a pair.
        block = slice(begin, begin + CACHED + 1)
        trajectory, word = labels[block], x.action[block].long() * _SPREAD + _APART
        pair = word[:-1] * _MIX + word[1:]
        kept, together = None, trajectory[1:] == trajectory[:-1]
        if x.mask is not None:
            kept, together = x.mask[block][:CACHED], together & x.mask[block][1:] & x.mask[block][:-1]
        first, last = int(trajectory[0]), int(trajectory[-1])
        row, own = (trajectory - first) * cells, counts[first * cells : (last + 1) * cells]
        own += _cell_counts(word[:CACHED], row[:CACHED], kept, cells, len(own))
        own += _cell_counts(pair, row[:-1], together, cells, len(own))
    # Of the upper bits of a hash, one says the sign: counting is faster than adding up numbers with signs.
    plus, minus = counts.view(x.trajectories, width, 2).unbind(2)
    return (plus - minus).double()


def _cell_counts(
    hashes: Int[Tensor, " rows"],
    row: Int[Tensor, " rows"],
    present: Bool[Tensor, " rows"] | None,
    cells: int,
    everywhere: int,
) -> Int[Tensor, " everywhere"]:
    """How many of the present hashes fall into each cell of their rows, by the upper 32 bits."""
    place = hashes.bitwise_right_shift(32).bitwise_and_(2**32 - 1).mul_(cells).bitwise_right_shift_(32).add_(row)
    if present is None:
        return torch.bincount(place, minlength=everywhere)
    # The others all go to a place before the first, since to leave them out takes longer.
    return torch.bincount(place.add_(1).mul_(present), minlength=1 + everywhere)[1:]
