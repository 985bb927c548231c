"""Counterfactual regret minimization on flat arrays: a solver made of parts, and its self-play, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.games.play import Play, Solver, measured_exactly
from stratagem.games.updates import Averaging, Matching, PolynomialAverage, Regrets, Volatility
from stratagem.tasks.adapter import require


@dataclass(frozen=True)
class CFR(Solver):
    """A variant of counterfactual regret minimization for two-player zero-sum games.

    In every information set with counterfactual values ``v(a)`` and strategy ``x``, an iteration takes instantaneous
    regrets ``r(a) = v(a) - sum_b x(b) v(b)``, adds ``x`` to the average, ``r`` to the regrets, and matches a new ``x``.

    alternating: the second player answers what the first has just changed to, as in OpenSpiel's solvers; otherwise both
    learn from the same strategies.
    """

    regrets: Regrets = Regrets()
    matching: Matching = Matching()
    averaging: Averaging = PolynomialAverage()
    alternating: bool = True

    def start(self, game: FlatGame) -> SelfPlay:
        """Its self-play on a game, at its beginning."""
        return SelfPlay(self, game)


class SelfPlay(Play):
    """A solver at work on one game: regrets, strategies and their averages, in float64.

    An iteration costs one pass over the pairs of sequences at which the game ends and two over each player's sequences:
    counterfactual values are ``A y`` summed up the player's own tree, where ``A`` is the payoff matrix over pairs of
    sequences and ``y`` the opponent's realization plan. The first iteration compiles, which takes a second or two.

    Raises :class:`InputError` for a game that is not two-player zero-sum, and when numba is not installed.
    """

    def __init__(self, solver: CFR, game: FlatGame) -> None:
        game.require_two_player_zero_sum("CFR")
        self.solver, self.game, self.iteration = solver, game, 0
        regrets, matching = solver.regrets, solver.matching
        self._sweep = _compiled(
            type(regrets.discount).kept,
            type(matching.discount).kept,
            type(matching.optimism).amount,
            type(solver.averaging).weight,
        )
        self._numbers = _Numbers.of(solver)
        means = _means(regrets.volatility, game), _means(matching.volatility, game)
        self._sides = tuple(_Side.at_start(game, number, means[0][number], means[1][number]) for number in range(2))

    def advance(self, iterations: int = 1) -> None:
        """Play on. Raises :class:`InputError` for a negative number."""
        if iterations < 0:
            raise InputError(f"iterations = {iterations}: must be at least 0")
        t = np.arange(self.iteration + 1, self.iteration + iterations + 1, dtype=np.float64)
        regrets, matching, averaging = self.solver.regrets, self.solver.matching, self.solver.averaging
        parts = (regrets.discount, matching.discount, matching.optimism, averaging)
        rows = tuple(np.ascontiguousarray(part.factors(t), np.float64) for part in parts)
        self._sweep(self._sides, self._numbers, self.iteration, iterations, rows)
        self.iteration += iterations

    @property
    def averaged(self) -> bool:
        """Whether there is an average yet."""
        return self.iteration > self.solver.averaging.warm_up

    def current(self) -> tuple[Strategy, ...]:
        """The strategies of the next iteration."""
        return tuple(side.strategy.copy() for side in self._sides)

    def average(self) -> tuple[Strategy, ...]:
        """The average strategies; the current ones while none is averaged yet. Uniform where play never came."""
        if not self.averaged:
            return self.current()
        return tuple(player.normalized(side.total) for player, side in zip(self.game.players, self._sides, strict=True))

    def measured(self) -> dict[str, float]:
        """Exact exploitability and value."""
        return measured_exactly(self.game, self.average(), self.current())

    def regrets(self) -> tuple[Strategy, ...]:
        """Accumulated regrets of every player's sequences; 0 for the empty one."""
        return tuple(side.regret.copy() for side in self._sides)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The accumulated regrets."""
        return {"regrets": {f"player{number}": torch.from_numpy(one) for number, one in enumerate(self.regrets())}}


# ---- what the sweep works on ----------------------------------------------------------------------------------------


class _Numbers(NamedTuple):
    """Plain numbers of a solver. rate, scale: of volatility, of regrets and of matching."""

    floor: float
    boost: float
    predicted_boost: float
    exponent: float
    rate: float
    scale: float
    expected_rate: float
    expected_scale: float
    alternating: bool

    @classmethod
    def of(cls, solver: CFR) -> _Numbers:
        regrets, matching = solver.regrets, solver.matching
        # Without volatility it is 0 everywhere.
        still = Volatility(rate=1.0, scale=np.inf)
        seen, expected = regrets.volatility or still, matching.volatility or still
        return cls(
            regrets.floor,
            regrets.boost,
            matching.boost,
            matching.exponent,
            seen.rate,
            seen.scale,
            expected.rate,
            expected.scale,
            solver.alternating,
        )


class _Side(NamedTuple):
    """One player's share: the tree, payoffs by own sequence (compressed rows), and what is learned.

    value: of sequences; after a sweep, instantaneous regrets.  total: of the average.
    seen, expected: means of magnitude, of regrets and of matching; of length 1 when all states share one.
    """

    first: Int64[ndarray, " states+1"]
    parent: Int64[ndarray, " states"]
    rows: Int64[ndarray, " sequences+1"]
    columns: Int64[ndarray, " pairs"]
    payoffs: Float64[ndarray, " pairs"]
    strategy: Strategy
    plan: Strategy
    value: Strategy
    regret: Strategy
    total: Strategy
    seen: Float64[ndarray, " means"]
    expected: Float64[ndarray, " means"]

    @classmethod
    def at_start(cls, game: FlatGame, number: int, seen: ndarray, expected: ndarray) -> _Side:
        player, other = game.players[number], game.players[1 - number]
        pairs, which = np.unique(
            game.sequence[:, number] * other.sequences + game.sequence[:, 1 - number], return_inverse=True
        )
        payoffs = np.bincount(which, game.chance * game.utility[:, number], len(pairs))
        rows = np.searchsorted(pairs, np.arange(player.sequences + 1) * other.sequences)
        strategy = player.uniform()
        value, regret, total = (np.zeros(player.sequences) for _ in range(3))
        return cls(
            player.first,
            player.parent,
            rows.astype(np.int64),
            pairs % other.sequences,
            payoffs,
            strategy,
            player.plan(strategy),
            value,
            regret,
            total,
            seen,
            expected,
        )


def _means(volatility: Volatility | None, game: FlatGame) -> tuple[ndarray, ...]:
    """Means of magnitude for both players: one array for both, or one number for each information state."""
    if volatility is None or volatility.shared:
        return (np.zeros(1),) * 2
    # Never of length 1, which would mean a shared one.
    return tuple(np.zeros(max(2, len(player.parent))) for player in game.players)


# ---- the sweep ------------------------------------------------------------------------------------------------------


@cache
def _compiled(
    kept: Callable[..., float],
    expected_kept: Callable[..., float],
    amount: Callable[..., float],
    weight: Callable[..., float],
) -> Callable[..., None]:
    """Iterations of a solver with these formulas, as machine code.

    kept, expected_kept: discounts of regrets and of matching.  amount: of optimism.  weight: of averaging.
    """
    njit: Any = require("numba", "games").njit(error_model="numpy")
    kept, expected_kept, amount, weight = (njit(formula) for formula in (kept, expected_kept, amount, weight))

    @njit  # type: ignore[untyped-decorator]
    def earn(side: _Side, plan: Strategy) -> None:
        """What each own sequence earns at once against the other's plan."""
        for own in range(len(side.value)):
            earned = 0.0
            for pair in range(side.rows[own], side.rows[own + 1]):
                earned += side.payoffs[pair] * plan[side.columns[pair]]
            side.value[own] = earned

    @njit  # type: ignore[untyped-decorator]
    def moved(means: Any, state: int, rate: float, magnitude: float, start: bool) -> float:
        """The mean of magnitude with one more."""
        place = 0 if len(means) == 1 else state
        means[place] = magnitude if start else rate * magnitude + (1.0 - rate) * means[place]
        return float(means[place])

    @njit  # type: ignore[untyped-decorator]
    def learn(side: _Side, numbers: _Numbers, start: bool, rows: Any) -> None:
        """Values up one player's tree, with regrets, average and matching on the way, and the new plan down."""
        first, parent, value, strategy, regret = side.first, side.parent, side.value, side.strategy, side.regret
        for state in range(len(parent) - 1, -1, -1):
            sequences = range(first[state], first[state + 1])
            mean, magnitude, norm = 0.0, 0.0, 0.0
            for a in sequences:
                mean += strategy[a] * value[a]
            value[parent[state]] += mean
            for a in sequences:
                value[a] -= mean
                magnitude = max(magnitude, abs(value[a]))
            seen = min(1.0, moved(side.seen, state, numbers.rate, magnitude, start) / numbers.scale)
            expected = moved(side.expected, state, numbers.expected_rate, magnitude, start) / numbers.expected_scale
            expected = min(1.0, expected)
            counts = weight(magnitude, rows[3]) * side.plan[parent[state]]
            hope = amount(expected, rows[2])
            for a in sequences:
                side.total[a] += counts * strategy[a]
                now, old = value[a], regret[a]
                boosted = numbers.boost * now if now > 0.0 else now
                new = max(numbers.floor, kept(old, seen, rows[0]) * old + boosted)
                regret[a] = new
                again = numbers.predicted_boost * now if now > 0.0 else now
                strength = max(0.0, expected_kept(new, expected, rows[1]) * new + hope * again)
                if numbers.exponent != 1.0:
                    strength = strength**numbers.exponent
                strategy[a] = strength
                norm += strength
            for a in sequences:
                strategy[a] = strategy[a] / norm if norm > 0.0 else 1.0 / len(sequences)
        for state in range(len(parent)):
            for a in range(first[state], first[state + 1]):
                side.plan[a] = side.plan[parent[state]] * strategy[a]

    @njit  # type: ignore[untyped-decorator]
    def sweep(sides: Any, numbers: _Numbers, done: int, iterations: int, rows: Any) -> None:
        """Both players, again and again."""
        for i in range(iterations):
            now = (rows[0][i], rows[1][i], rows[2][i], rows[3][i])
            start = done + i == 0
            if not numbers.alternating:
                for p in range(2):
                    earn(sides[p], sides[1 - p].plan)
            for p in range(2):
                if numbers.alternating:
                    earn(sides[p], sides[1 - p].plan)
                learn(sides[p], numbers, start, now)

    compiled: Callable[..., None] = sweep
    return compiled
