"""Inner loops of meta-solvers for any number of players, compiled by numba."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from stratagem.games.metagame import Metagame, Mixture
from stratagem.tasks.adapter import require


def replicator(game: Metagame, floor: float, dt: float, steps: int) -> tuple[Mixture, ...]:
    """Means of projected replicator dynamics."""
    x, total = _start(game)
    _loops().replicator(_flat(game.expected), game.profiles, _sizes(game), x, total, floor, dt, steps)
    return _mixtures(game, total / steps)


def hybrid(
    game: Metagame, steps: int, blend: float, temperature: float, diversity: float, momentum: float, average: bool
) -> tuple[Mixture, ...]:
    """Optimistic regret matching blended with a softmax: means, or the last mixtures."""
    x, total = _start(game)
    numbers = (blend, temperature, diversity, momentum)
    _loops().hybrid(_flat(game.expected), game.profiles, _sizes(game), x, total, numbers, steps)
    return _mixtures(game, total / steps if average else x)


def robust_replicator(game: Metagame, threshold: float, dt: float, floor: float, steps: int) -> tuple[Mixture, ...]:
    """Replicator dynamics on bounds of payoffs, until regret is below a threshold for sure."""
    x, _ = _start(game)
    bounds = _flat(game.lower), _flat(game.upper)
    _loops().robust(*bounds, game.profiles, _sizes(game), x, threshold, dt, floor, steps)
    return _mixtures(game, x)


def _start(game: Metagame) -> tuple[ndarray, ndarray]:
    """Uniform mixtures, padded with zeros to one array, and zeros of its shape."""
    x = np.zeros((game.players, max(game.sizes)))
    for player, size in enumerate(game.sizes):
        x[player, :size] = 1.0 / size
    return x, np.zeros_like(x)


def _flat(payoffs: ndarray) -> ndarray:
    return np.ascontiguousarray(payoffs.reshape(len(payoffs), -1))


def _sizes(game: Metagame) -> ndarray:
    return np.array(game.sizes, np.int64)


def _mixtures(game: Metagame, x: ndarray) -> tuple[Mixture, ...]:
    return tuple(row[:size] / row[:size].sum() for row, size in zip(x, game.sizes, strict=True))


class _Loops(NamedTuple):
    replicator: Any
    hybrid: Any
    robust: Any


@cache
def _loops() -> _Loops:
    njit: Any = require("numba", "games").njit(error_model="numpy")

    @njit  # type: ignore[untyped-decorator]
    def earn(payoffs: Any, profiles: Any, x: Any, player: int, out: Any) -> None:
        """What each strategy of a player earns against the others' mixtures."""
        out[:] = 0.0
        for profile in range(len(profiles)):
            weight = payoffs[player, profile]
            for other in range(len(x)):
                if other != player:
                    weight *= x[other, profiles[profile, other]]
            out[profiles[profile, player]] += weight

    @njit  # type: ignore[untyped-decorator]
    def project(x: Any, floor: float) -> None:
        """The nearest mixture with at least ``floor`` everywhere; nothing to do for one that has it."""
        least, total = x[0], 0.0
        for one in x:
            least, total = min(least, one), total + one
        if least >= floor and abs(total - 1.0) <= 1e-12:
            return
        room, cut, before = 1.0 - len(x) * floor, 0.0, 0.0
        for rank, one in enumerate(np.sort(x)[::-1]):
            before += one - floor
            shift = (before - room) / (rank + 1)
            if one - floor > shift:
                cut = shift
        for k in range(len(x)):
            x[k] = max(x[k] - floor - cut, 0.0) + floor

    @njit  # type: ignore[untyped-decorator]
    def replicator(
        payoffs: Any, profiles: Any, sizes: Any, x: Any, total: Any, floor: float, dt: float, steps: int
    ) -> None:
        value = np.zeros(x.shape)
        for _ in range(steps):
            for p in range(len(x)):
                earn(payoffs, profiles, x, p, value[p])
            for p in range(len(x)):
                mean = 0.0
                for k in range(sizes[p]):
                    mean += x[p, k] * value[p, k]
                for k in range(sizes[p]):
                    x[p, k] += dt * x[p, k] * (value[p, k] - mean)
                project(x[p, : sizes[p]], floor)
            total += x

    @njit  # type: ignore[untyped-decorator]
    def hybrid(payoffs: Any, profiles: Any, sizes: Any, x: Any, total: Any, numbers: Any, steps: int) -> None:
        blend, temperature, diversity, momentum = numbers
        value, gain = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        regret, before = np.zeros(x.shape), np.zeros(x.shape)
        for _ in range(steps):
            for p in range(len(x)):
                size = sizes[p]
                earn(payoffs, profiles, x, p, value)
                mean, most = 0.0, -np.inf
                for k in range(size):
                    mean += value[k] / size
                    most = max(most, value[k])
                largest = 0.0
                for k in range(size):
                    centered = value[k] - mean
                    gain[k] = (1.0 + momentum) * centered - momentum * before[p, k] + diversity * (1.0 - x[p, k])
                    before[p, k] = centered
                    largest = max(largest, abs(gain[k]))
                matched, soft = 0.0, 0.0
                for k in range(size):
                    regret[p, k] = max(0.0, regret[p, k] + (gain[k] / largest if largest > 1e-8 else gain[k]))
                    matched += regret[p, k]
                    soft += math.exp((value[k] - most) / temperature)
                for k in range(size):
                    by_regret = regret[p, k] / matched if matched > 1e-12 else 1.0 / size
                    by_value = math.exp((value[k] - most) / temperature) / soft
                    x[p, k] = (1.0 - blend) * by_regret + blend * by_value
            total += x

    @njit  # type: ignore[untyped-decorator]
    def robust(
        lower: Any,
        upper: Any,
        profiles: Any,
        sizes: Any,
        x: Any,
        threshold: float,
        dt: float,
        floor: float,
        steps: int,
    ) -> None:
        low, high, mean = np.zeros(x.shape), np.zeros(x.shape), np.zeros(len(x))
        for _ in range(steps):
            regret = 0.0
            for p in range(len(x)):
                earn(lower, profiles, x, p, low[p])
                earn(upper, profiles, x, p, high[p])
                mean[p] = 0.0
                for k in range(sizes[p]):
                    mean[p] += x[p, k] * low[p, k]
                regret += high[p, : sizes[p]].max() - mean[p]
            if regret < threshold:
                break
            for p in range(len(x)):
                if sizes[p] == 1:
                    continue
                first, second = -np.inf, -np.inf
                for k in range(sizes[p]):
                    if high[p, k] > first:
                        first, second, at = high[p, k], first, k
                    elif high[p, k] > second:
                        second = high[p, k]
                for k in range(sizes[p]):
                    rival = second if k == at else first
                    x[p, k] += dt * x[p, k] * ((high[p, k] - mean[p]) - (rival - low[p, k]))
                project(x[p, : sizes[p]], floor)

    return _Loops(replicator, hybrid, robust)
