"""Risk-averse equilibria: every player weighs what it earns against how much the others' randomness moves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.metasolvers import MetaSolver

_Array = TypeVar("_Array", ndarray, Tensor)


@dataclass(frozen=True)
class RiskAverse(MetaSolver):
    """A risk-averse equilibrium: each mixture ``x`` maximizes ``x.u - aversion * x^T S x`` against the others'.

    ``u`` is what strategies earn on average and ``S`` their covariance over the others' joint choices, which tremble:
    with probability ``tremble`` each other player chooses evenly. Without trembles a pure profile has no variance, and
    every strict pure equilibrium stays one. Found by fictitious play from uniform mixtures: ``steps`` times all players
    move towards their best mixture against the averages, by ``1 / (t + 2)`` of the way at ``t = 0, 1, ...``.

    aversion: in 1 / utility: payoffs ``c`` times as large with ``aversion / c`` have the same equilibria; 0 is
    fictitious play for Nash equilibria.

    Concept: arXiv 2205.15434. The paper's text was not available in full: the covariance form, the trembles and the
    procedure are a reconstruction.
    """

    aversion: Annotated[float, Ge(0)] = 1.0
    tremble: Annotated[float, Ge(0), Le(1)] = 0.1
    steps: Annotated[int, Ge(1)] = 1000

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        averages: tuple[Mixture, ...] = game.uniform()
        for t in range(self.steps):
            best = [self.response(game, player, averages) for player in range(game.players)]
            averages = tuple(x + (y - x) / (t + 2) for x, y in zip(averages, best, strict=True))
        return averages

    def response(self, game: Metagame, player: int, mixtures: Sequence[Mixture]) -> Mixture:
        """The best mixture of a player against the others'; of equal ones the most even."""
        mean = game.deviations(player, mixtures)
        return quadratic_on_simplex(mean, self.aversion * covariance(game, player, mixtures, self.tremble))


def covariance(
    game: Metagame, player: int, mixtures: Sequence[Mixture], tremble: float = 0.0
) -> Float64[ndarray, "strategies strategies"]:
    """Of what a player's strategies earn, over the others' joint choices: ``sum_k y_k (A_k - A y)(A_k - A y)^T``."""
    table, weights = game.against(player, [trembling(mixture, tremble) for mixture in mixtures])
    centered = table - (table @ weights)[:, None]
    return np.asarray((centered * weights) @ centered.T)


def trembling(mixture: Mixture, tremble: float) -> Mixture:
    """``(1 - tremble) y + tremble / n``."""
    return np.asarray((1.0 - tremble) * mixture + tremble / len(mixture))


def risk_averse_returns(returns: _Array, aversion: float, mean: float) -> _Array:
    """``G - aversion (G^2 - 2 G mean)``: returns whose policy gradient is that of ``E[G] - aversion Var(G)``.

    ``mean``: of the returns, held constant, such as a running mean: ``grad Var = grad E[G^2] - 2 E[G] grad E[G]``.
    Raises :class:`InputError` for a negative aversion.
    """
    if aversion < 0:
        raise InputError(f"aversion = {aversion}: must be at least 0")
    return returns * (1.0 + 2.0 * aversion * mean) - aversion * returns**2


def quadratic_on_simplex(linear: Float64[ndarray, " n"], quadratic: Float64[ndarray, "n n"]) -> Float64[ndarray, " n"]:
    """The mixture that maximizes ``linear.x - x^T quadratic x``; of equal ones, that of least norm.

    quadratic: positive semidefinite. Exact up to rounding: the active-set method of Wolfe, on the problem with a
    ridge of 1e-9 of its scale, which makes the answer unique.
    """
    size = len(linear)
    scale = max(float(np.abs(linear - linear.mean()).max()), float(np.abs(quadratic).max()), 1e-300)
    linear, curved = (linear - linear.mean()) / scale, 2.0 * (quadratic / scale + 1e-9 * np.eye(size))
    x = np.zeros(size)
    x[int(linear.argmax())] = 1.0
    used = [int(linear.argmax())]
    for _ in range(20 * size + 20):
        x, used = _within(x, used, linear, curved)
        slope = linear - curved @ x
        entering = int(slope.argmax())
        if entering in used or slope[entering] - x @ slope <= 1e-12:
            break
        used.append(entering)
    return np.asarray(x / x.sum())


def _within(x: ndarray, used: list[int], linear: ndarray, curved: ndarray) -> tuple[ndarray, list[int]]:
    """The best mixture of the strategies in use; those that it would give less than nothing leave on the way."""
    while True:
        count = len(used)
        system = np.ones((count + 1, count + 1))
        system[:count, :count], system[count, count] = curved[np.ix_(used, used)], 0.0
        best = np.linalg.solve(system, np.append(linear[used], 1.0))[:count]
        if (best > -1e-12).all():
            found = np.zeros_like(x)
            found[used] = np.maximum(best, 0.0)
            return found / found.sum(), used
        now = x[used]
        falling = best < now
        room = np.where(falling, now / np.where(falling, now - best, 1.0), np.inf)
        share = min(1.0, float(room.min()))
        moved = now + share * (best - now)
        moved[int(room.argmin())] = 0.0
        x = np.zeros_like(x)
        x[used] = moved
        used = [strategy for strategy in used if x[strategy] > 0.0]
