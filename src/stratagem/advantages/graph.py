"""Advantages on the graph that the trajectories of a group make: states are its nodes, steps from one to the next its
edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stratagem.advantages.group import GroupStandardized
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage
from stratagem.seeding import generator


@dataclass(frozen=True)
class SharedSteps(Advantage):
    """``A_u = mean_{v in E(u)} A_v`` for every turn, with ``E(u)`` the turns that took the same step as ``u``.

    What good and bad trajectories of a group have in common is neutral, and what only some did decides; so a shared
    step gets the mean of the advantages of those who took it, and a step that nobody else took keeps its own. Over all
    turns the sum stays what it was (with ``count = "steps"``).

    Two turns of a group took the same step when they began in one state, did the same, and came into one next state or
    both ended; and when the ``history`` steps before each are the same, too, as far back as its trajectory goes. States
    are told by ``turn_state``. Actions are the same when all their tokens are, whether they may train or not; texts
    with free reasoning in them hardly ever are. Tokens are compared by keys: two actions of up to 2^18 different tokens
    that differ are taken for one with a probability of at most 2^-46. No reward is in the comparison, or ends with
    different outcomes could not be averaged.

    Turns of which no token may train have no part in a mean. A demonstration is a trajectory like any other;
    ``WithDemonstrations(SharedSteps(...))`` keeps it apart. A reconstruction: the text of arXiv 2510.20022 beyond its
    abstract was not available, descriptions of it give the mean over shared steps but not when steps are shared.

    of: the advantage to average, with one value for all tokens of a turn (any of whole trajectories).
    history: steps before a turn that are compared; 0: none; None: all, so that only a common beginning is shared.
    count: whether each of the ``steps`` counts in the mean, or each of the ``trajectories``, of which one that goes in
    a circle may have taken a step several times.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"turn_state", "action"})

    of: Advantage = GroupStandardized()
    history: Annotated[int, Ge(0)] | None = 1
    count: Literal["steps", "trajectories"] = "steps"

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self.of(x)
        taught, first = _first_learnable(x)
        own = credit[first]
        shared = torch.zeros(x.turns, dtype=credit.dtype, device=x.device)
        shared[taught] = self._mean(same_steps(x, self.history), own, taught, x).to(credit.dtype)
        return x.to_tokens(turn=shared)

    def _mean(self, steps: Partition, own: Tensor, taught: Tensor, x: Experience) -> Float[Tensor, " taught"]:
        """What each of the turns ``taught`` gets, of which ``own`` are the values."""
        steps = steps.select(taught)
        if self.count == "steps":
            return steps.spread(steps.mean(own))
        taken = Partition.by(x.trajectory_of_turn.labels[taught], within=steps)
        step_of_taken = Partition(steps.labels[taken.first()], steps.count)
        return steps.spread(step_of_taken.mean(taken.mean(own)))


def same_steps(x: Experience, history: int | None = 1) -> Partition:
    """Turns by the step they took: from one state by one action to one next state, within a group.

    history: steps before a turn that have to be the same, too, or be missing alike where a trajectory begins; None for
    all. The more of them, the finer the partition.

    Raises ``ValueError`` when ``x`` lacks ``turn_state`` or ``action``.
    """
    if x.turn_state is None or x.action is None:
        raise ValueError(f"comparing steps needs {' and '.join(x.missing(('turn_state', 'action')))}")
    states = Partition.by(x.turn_state)
    deeds = _pairs(states, Partition.by(action_keys(x)))
    ends = x.trajectory_of_turn.is_last()
    following = Partition(torch.where(ends, states.count, states.labels.roll(-1)), states.count + 1)
    steps = _pairs(_pairs(deeds, following), _past(deeds, x.trajectory_of_turn.position(), history))
    return _pairs(x.group_of_turn, steps)


def action_keys(x: Experience) -> Int[Tensor, " turns"]:
    """A 64-bit key of what was done in each turn: equal for equal sequences of tokens (or vectors).

    ``r n + sum_k r_k a_k`` modulo 2^64 for ``n`` tokens, with fixed random numbers ``r``, and ``r_k`` for each place in
    a turn. Over the draw of these, keys of two different sequences are equal with a probability of ``2^(z - 64)``,
    where ``z`` is the number of binary zeros in which all differences (of tokens, and of ``n``) end: less than the bits
    of a token's number, and than 32 for the numbers of a vector. Keys of different batches cannot be compared.
    """
    assert x.action is not None
    numbers = _as_integers(x.action.unsqueeze(1) if x.action.ndim == 1 else x.action.flatten(1))
    sizes = x.turn_of_token.size()
    longest = int(sizes.max()) if x.turns else 0
    limit = torch.iinfo(torch.int64)
    shape = (1 + numbers.shape[1], longest + 1)
    random = torch.randint(limit.min, limit.max, shape, generator=generator(0, "action keys")).to(x.device)
    keys = random[0, 0] * sizes
    for factors, column in zip(random[1:], numbers.unbind(1), strict=True):
        keys += x.turn_of_token.sum(x.turn_of_token.by_position(factors).mul_(column))
    return keys


def _as_integers(action: Shaped[Tensor, "tokens columns"]) -> Int[Tensor, "tokens columns"]:
    """Tokens as they are; the numbers of vectors bit by bit, those of 64 bits in two halves."""
    if not action.is_floating_point():
        return action.long()
    unsigned_zero = action + 0.0
    return unsigned_zero.view(torch.int16 if action.element_size() == 2 else torch.int32).long()


def _past(deeds: Partition, place: Int[Tensor, " turns"], history: int | None) -> Partition:
    """Turns by the ``history`` deeds before each, exactly, by doubling.

    place: of each turn in its trajectory.
    """
    longest = int(place.max()) if len(place) else 0
    wanted = longest if history is None else min(history, longest)

    def before(those: Partition, turns: int) -> Partition:
        return Partition(torch.where(place >= turns, those.labels.roll(turns), those.count), those.count + 1)

    past, seen = Partition.whole(len(place), place.device), 0
    block, size = before(deeds, 1), 1
    while seen < wanted:
        if wanted & size:
            past, seen = _pairs(past, before(block, seen)), seen + size
        if seen < wanted:
            block, size = _pairs(block, before(block, size)), 2 * size
    return past


def _pairs(first: Partition, second: Partition) -> Partition:
    """Rows that both partitions put together."""
    return Partition.by(first.labels * second.count + second.labels)


def _first_learnable(x: Experience) -> tuple[Int[Tensor, " taught"], Int[Tensor, " taught"]]:
    """Turns with a token that may train, and the first such token of each."""
    if x.mask is None:
        return torch.nonzero(x.turn_of_token.size()).squeeze(1), x.turn_of_token.first()
    count = x.turn_of_token.sum(x.mask)
    taught = torch.nonzero(count).squeeze(1)
    return taught, torch.nonzero(x.mask).squeeze(1)[(count.cumsum(0) - count)[taught]]
