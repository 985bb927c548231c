"""Extensive games as flat arrays: sequences of each player, information states by depth, and terminal histories."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from stratagem.errors import InputError

S = TypeVar("S")

LIMIT = 1_000_000
"""Histories of the largest game that is enumerated unless somebody asks for more."""

Strategy: TypeAlias = "Float64[ndarray, '*many sequences']"
"""Of one player: the probability of each sequence's last action in its information state; 1 for the empty sequence."""


# ---- what a game is made of -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terminal:
    """The end of a game. utilities: one for each player."""

    utilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Chance(Generic[S]):
    """Nature moves. outcomes: probability and what follows."""

    outcomes: Sequence[tuple[float, S]]


@dataclass(frozen=True, slots=True)
class Decision(Generic[S]):
    """A player moves. state: what the player knows; equal in all histories that the player cannot tell apart.

    actions: label and what follows; the same labels wherever ``state`` is the same.
    """

    player: int
    state: Hashable
    actions: Sequence[tuple[str, S]]


History: TypeAlias = "Terminal | Chance[S] | Decision[S]"


@dataclass(frozen=True, eq=False)
class FlatPlayer:
    """Sequences of one player. A sequence is an information state and an action there; number 0 is the empty one.

    Information states are sorted by depth (own actions before them), so that one pass from the last to the first sees
    every state after those that follow it. The sequences of state ``i`` are ``first[i]`` to ``first[i + 1] - 1``.

    states: labels.  actions: labels by state.  parent: last own sequence before each state.
    levels: states of depth ``d`` are ``levels[d]`` to ``levels[d + 1] - 1``.
    """

    states: tuple[str, ...]
    actions: tuple[tuple[str, ...], ...]
    first: Int64[ndarray, " states+1"]
    parent: Int64[ndarray, " states"]
    levels: Int64[ndarray, " depths+1"]

    @property
    def sequences(self) -> int:
        """How many, the empty one included."""
        return int(self.first[-1])

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Of states, by label."""
        return {label: number for number, label in enumerate(self.states)}

    @cached_property
    def state_of(self) -> Int64[ndarray, " sequences-1"]:
        """Information state of each sequence but the empty one."""
        return np.repeat(np.arange(len(self.parent)), np.diff(self.first))

    def uniform(self) -> Float64[ndarray, " sequences"]:
        """The strategy that takes every action equally often."""
        return np.concatenate([[1.0], 1.0 / np.diff(self.first)[self.state_of]])

    def normalized(self, weights: Strategy) -> Strategy:
        """The strategy in proportion to non-negative weights; uniform in states where all are 0."""
        strategy = np.ones_like(weights)
        if len(self.parent):
            sums = np.add.reduceat(weights, self.first[:-1], axis=-1)[..., self.state_of]
            known = np.divide(weights[..., 1:], sums, where=sums > 0, out=np.zeros_like(sums))
            strategy[..., 1:] = np.where(sums > 0, known, self.uniform()[1:])
        return strategy

    def plan(self, strategy: Strategy) -> Strategy:
        """Realization plan: the product of the strategy's probabilities along each sequence."""
        plan = np.ones_like(strategy)
        for states, sequences in self._levels():
            before = plan[..., self.parent[states]]
            plan[..., sequences] = strategy[..., sequences] * np.repeat(before, np.diff(self.first)[states], axis=-1)
        return plan

    def best(self, values: Strategy) -> tuple[Float64[ndarray, "*many"], Strategy]:
        """The best that can be had of values of sequences, and a pure strategy that has it: the first of equal ones.

        A state is worth the best of its sequences, a sequence its own value and that of all states that follow it.
        """
        values, strategy = values.copy(), np.zeros_like(values)
        strategy[..., 0] = 1.0
        for states, sequences in reversed(list(self._levels())):
            first, sizes = self.first[states] - sequences.start, np.diff(self.first)[states]
            level = values[..., sequences]
            best = np.maximum.reduceat(level, first, axis=-1)
            ties = level == np.repeat(best, sizes, axis=-1)
            before = np.cumsum(ties, axis=-1) - ties
            strategy[..., sequences] = ties & (before == np.repeat(before[..., first], sizes, axis=-1))
            _add_at(values, self.parent[states], best)
        return values[..., 0], strategy

    def _levels(self) -> list[tuple[slice, slice]]:
        """States and sequences by depth."""
        ends = self.levels.tolist()
        return [(slice(low, high), slice(int(self.first[low]), int(self.first[high]))) for low, high in pairwise(ends)]


@dataclass(frozen=True, eq=False)
class FlatGame:
    """A game with perfect recall in sequence form: what every ending is worth, and which sequences lead there.

    name: for people.  players: their sequences.  histories: of the tree it was made from.
    sequence: last sequence of every player.  chance: probability of all that nature did.  utility: of every player.
    source: the game of OpenSpiel it was made from and pays like, so that it can be played there, too.
    """

    name: str
    players: tuple[FlatPlayer, ...]
    histories: int
    sequence: Int64[ndarray, "terminals players"]
    chance: Float64[ndarray, " terminals"]
    utility: Float64[ndarray, "terminals players"]
    source: str | None = None

    @property
    def zero_sum(self) -> bool:
        """Whether the utilities of all players add up to 0 wherever the game ends."""
        scale = max(1.0, float(np.abs(self.utility).max(initial=0.0)))
        return bool((np.abs(self.utility.sum(1)) <= 1e-9 * scale).all())

    def require_two_player_zero_sum(self, what: str) -> None:
        """Raise :class:`InputError` for a game of another kind, naming ``what`` cannot be done there."""
        if len(self.players) != 2:
            raise InputError(
                f"{what}: game {self.name} has {len(self.players)} players; it needs two with opposite utilities"
            )
        if not self.zero_sum:
            most = float(np.abs(self.utility.sum(1)).max())
            raise InputError(
                f"{what}: game {self.name} is not zero-sum (utilities of an ending add up to {most:g}, or minus that); "
                "it needs two players with opposite utilities"
            )

    def uniform(self) -> tuple[Strategy, ...]:
        """The uniform strategy of every player."""
        return tuple(player.uniform() for player in self.players)

    def plans(self, strategies: Sequence[Strategy]) -> tuple[Strategy, ...]:
        """Realization plans of strategies."""
        return tuple(player.plan(one) for player, one in zip(self.players, strategies, strict=True))

    def values(self, strategies: Sequence[Strategy]) -> Float64[ndarray, "*many players"]:
        """Expected utility of every player. Strategies may have leading axes, over which they are judged at once."""
        reach = self.chance
        for plan, last in zip(self.plans(strategies), self.sequence.T, strict=True):
            reach = reach * plan[..., last]
        values: ndarray = reach @ self.utility
        return values

    def sequence_values(self, player: int, plans: Sequence[Strategy]) -> Strategy:
        """What each sequence of a player earns where it ends the player's moves, against the others' plans.

        ``sum over endings z of chance(z) u_player(z) prod over others of plan(z)``: the gradient of the player's
        expected utility with respect to the player's own plan.
        """
        order, starts, sequences = self._endings[player]
        worth = (self.chance * self.utility[:, player])[order]
        for other, plan in enumerate(plans):
            if other != player:
                worth = worth * plan[..., self.sequence[order, other]]
        values = np.zeros((*worth.shape[:-1], self.players[player].sequences))
        values[..., sequences] = np.add.reduceat(worth, starts, axis=-1)
        return values

    def best_response(self, player: int, strategies: Sequence[Strategy]) -> tuple[Float64[ndarray, "*many"], Strategy]:
        """The most a player can earn against the others' strategies, and a pure strategy that earns it.

        The player's own strategy is not looked at. Exact; leading axes are many opponents at once.
        """
        return self.players[player].best(self.sequence_values(player, self.plans(strategies)))

    def nash_conv(self, strategies: Sequence[Strategy]) -> Float64[ndarray, "*many"]:
        """Sum over players of what a best response would gain; 0 at an equilibrium alone."""
        plans = self.plans(strategies)
        best = [one.best(self.sequence_values(n, plans))[0] for n, one in enumerate(self.players)]
        # Rounding alone makes it negative.
        gain: ndarray = np.maximum(np.stack(best, -1).sum(-1) - self.values(strategies).sum(-1), 0.0)
        return gain

    def exploitability(self, strategies: Sequence[Strategy]) -> Float64[ndarray, "*many"]:
        """``nash_conv / players``, in the game's units of utility: how OpenSpiel has it."""
        return self.nash_conv(strategies) / len(self.players)

    def with_utility(self, utility: Float64[ndarray, "terminals players"], name: str | None = None) -> FlatGame:
        """The same tree with other utilities. Raises :class:`InputError` for another shape or a value not finite."""
        if utility.shape != self.utility.shape or not np.isfinite(utility).all():
            raise InputError(f"game {self.name}: utilities must be finite and of shape {self.utility.shape}")
        changed = np.asarray(utility, np.float64)
        return dataclasses.replace(self, utility=changed, name=name or self.name, source=None)

    @cached_property
    def _endings(self) -> list[tuple[ndarray, ndarray, ndarray]]:
        """By player: terminals sorted by own sequence, where each sequence's begin, and which those sequences are."""
        found = []
        for last in self.sequence.T:
            order = np.argsort(last, kind="stable")
            sequences, starts = np.unique(last[order], return_index=True)
            found.append((order, starts, sequences))
        return found


def _add_at(values: ndarray, places: ndarray, more: ndarray) -> None:
    """``values[..., places] += more`` where places may repeat."""
    np.add.at(np.moveaxis(values, -1, 0), places, np.moveaxis(more, -1, 0))


# ---- from a tree to arrays ------------------------------------------------------------------------------------------


@dataclass
class _Drafted:
    """A player's information states in the order they were met. Sequences are pairs of state and action."""

    numbers: dict[Hashable, int] = field(default_factory=dict)
    actions: list[tuple[str, ...]] = field(default_factory=list)
    parents: list[tuple[int, int] | None] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)

    def state(self, node: Decision[S], last: tuple[int, int] | None, game: str) -> int:
        """Number of the state a decision is made in."""
        labels = tuple(label for label, _ in node.actions)
        number = self.numbers.setdefault(node.state, len(self.actions))
        if number == len(self.actions):
            if len(set(labels)) < len(labels) or not labels:
                raise InputError(f"game {game}: state {node.state!r} needs actions, each of another name")
            self.actions.append(labels)
            self.parents.append(last)
            self.depths.append(0 if last is None else self.depths[last[0]] + 1)
        elif self.actions[number] != labels:
            raise InputError(f"game {game}: state {node.state!r} has different actions in different histories")
        elif self.parents[number] != last:
            raise NotEnumerable(
                f"game {game}: player {node.player} forgets: state {node.state!r} is reached by different own actions; "
                "sequence form needs perfect recall"
            )
        return number

    def flat(self) -> tuple[FlatPlayer, Callable[[tuple[int, int] | None], int]]:
        """The player with states sorted by depth, and where a sequence went."""
        order = sorted(range(len(self.actions)), key=self.depths.__getitem__)
        sizes = [len(self.actions[old]) for old in order]
        first = np.concatenate([[1], 1 + np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        begin = {old: int(first[new]) for new, old in enumerate(order)}

        def place(sequence: tuple[int, int] | None) -> int:
            return 0 if sequence is None else begin[sequence[0]] + sequence[1]

        labels = [str(state) for state in self.numbers]
        counts = np.bincount(self.depths, minlength=1) if order else np.zeros(0, np.int64)
        player = FlatPlayer(
            tuple(labels[old] for old in order),
            tuple(self.actions[old] for old in order),
            first,
            np.array([place(self.parents[old]) for old in order], np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )
        return player, place


def flatten(name: str, players: int, root: S, expand: Callable[[S], History[S]], limit: int = LIMIT) -> FlatGame:
    """Walk a game's whole tree and write it down as arrays.

    players: how many.  root: the first history.  expand: what a history is.  limit: most histories to walk.

    Raises :class:`InputError` for a game with more histories, without perfect recall, or whose chances do not add up.
    """
    drafts = [_Drafted() for _ in range(players)]
    nobody: tuple[tuple[int, int] | None, ...] = (None,) * players
    stack: list[tuple[S, float, tuple[tuple[int, int] | None, ...], float]] = [(root, 1.0, nobody, 1.0)]
    endings: list[tuple[tuple[tuple[int, int] | None, ...], float, tuple[float, ...]]] = []
    histories, walked = 0, 0.0
    while stack:
        history, chance, last, share = stack.pop()
        histories += 1
        if histories > limit:
            raise too_large(name, limit, histories / walked if walked else math.inf)
        node = expand(history)
        if isinstance(node, Terminal):
            if len(node.utilities) != players or not all(map(math.isfinite, node.utilities)):
                raise InputError(f"game {name}: an ending pays {node.utilities}; needs {players} finite numbers")
            endings.append((last, chance, node.utilities))
            walked += share
        elif isinstance(node, Chance):
            total = math.fsum(probability for probability, _ in node.outcomes)
            if abs(total - 1.0) > 1e-9 or any(probability < 0 for probability, _ in node.outcomes):
                raise InputError(f"game {name}: chances add up to {total:g}; they must be at least 0 and add up to 1")
            share /= len(node.outcomes)
            stack += [(after, chance * probability, last, share) for probability, after in reversed(node.outcomes)]
        else:
            number, share = drafts[node.player].state(node, last[node.player], name), share / len(node.actions)
            for action in range(len(node.actions) - 1, -1, -1):
                own = (*last[: node.player], (number, action), *last[node.player + 1 :])
                stack.append((node.actions[action][1], chance, own, share))
    made = [draft.flat() for draft in drafts]
    return FlatGame(
        name,
        tuple(player for player, _ in made),
        histories,
        np.array(
            [[place(one) for (_, place), one in zip(made, last, strict=True)] for last, _, _ in endings], np.int64
        ),
        np.array([chance for _, chance, _ in endings], np.float64),
        np.array([utilities for _, _, utilities in endings], np.float64),
    )


class NotEnumerable(InputError):
    """A game cannot be written down as flat arrays; some that cannot can still be played."""


def too_large(name: str, limit: int, estimate: float) -> NotEnumerable:
    """The error for a game with more histories than are enumerated. estimate: how many it may have."""
    about = f"about {estimate:.1g}" if estimate < 1e300 else "more than 1e300"
    return NotEnumerable(
        f"game {name} is too large to enumerate: it has more than {limit:,} histories, {about} by an estimate; "
        "choose a smaller variant of it, raise the limit (--histories) if memory allows, about 1 kB for each, "
        "or learn responses by playing it: stratagem solve psro --set oracle=learned"
    )


# ---- games without a library ----------------------------------------------------------------------------------------


def tree_game(name: str, players: int, root: History[Any]) -> FlatGame:
    """A game written down as nested :class:`Chance`, :class:`Decision` and :class:`Terminal`.

    Raises :class:`InputError` as :func:`flatten` does.
    """

    def expand(history: Any) -> History[Any]:
        return history  # type: ignore[no-any-return]  # it is written down already

    return flatten(name, players, root, expand)


def matrix_game(
    payoffs: Float64[ndarray, "rows columns"],
    name: str = "matrix",
    *,
    second: Float64[ndarray, "rows columns"] | None = None,
) -> FlatGame:
    """A game of one move each, made at the same time.

    payoffs: to the player who chooses the row.  second: to the other; minus those of the first by default.

    Raises :class:`InputError` for anything but matrices of finite numbers with at least one row and column.
    """
    payoffs = np.asarray(payoffs, np.float64)
    if payoffs.ndim != 2 or not payoffs.size or not np.isfinite(payoffs).all():
        raise InputError(f"game {name}: payoffs must be a matrix of finite numbers, not of shape {payoffs.shape}")
    others = -payoffs if second is None else np.asarray(second, np.float64)
    if others.shape != payoffs.shape or not np.isfinite(others).all():
        raise InputError(f"game {name}: payoffs of both players must be finite and of shape {payoffs.shape}")

    def ending(row: int, column: int) -> Terminal:
        return Terminal((float(payoffs[row, column]), float(others[row, column])))

    rows, columns = map(range, payoffs.shape)
    replies = [Decision(1, "column", [(str(column), ending(row, column)) for column in columns]) for row in rows]
    return tree_game(name, 2, Decision(0, "row", [(str(row), replies[row]) for row in rows]))
