"""Meta-solvers: which mixture of its population every player is thought to play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from numpy import ndarray

from stratagem.errors import InputError
from stratagem.games.dynamics import hybrid, replicator, robust_replicator
from stratagem.games.metagame import Metagame, Mixture
from stratagem.part import Part

PROFILES = 1600
"""Most profiles between which alpha-rank's chain is solved."""


class MetaSolver(Part):
    """From what the strategies of a population earn to one mixture for each player."""

    kind: ClassVar[str] = "meta_solver"

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        """The mixtures. iteration: of the population, from 1 on; for solvers with a schedule."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(MetaSolver):
    """Every strategy equally often: with best responses, fictitious play."""

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        return game.uniform()


@dataclass(frozen=True)
class Newest(MetaSolver):
    """The last strategy alone: with best responses, iterated best response."""

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        return tuple(np.eye(size)[-1] for size in game.sizes)


@dataclass(frozen=True)
class Nash(MetaSolver):
    """An equilibrium of the metagame by linear programming: with best responses, the double oracle algorithm.

    ``max_x min_j (x^T A)_j``, and the same for the other player. Raises :class:`InputError` for a game that is not
    two-player zero-sum.
    """

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        game.require_two_player_zero_sum("meta-solver nash")
        payoffs = game.expected[0]
        return maximin(payoffs), maximin(-payoffs.T)


def maximin(payoffs: Float64[ndarray, "rows columns"]) -> Mixture:
    """The mixture of rows whose worst column is best."""
    from scipy.optimize import linprog

    rows, columns = payoffs.shape
    found = linprog(
        np.append(np.zeros(rows), -1.0),
        A_ub=np.hstack([-payoffs.T, np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        A_eq=np.append(np.ones(rows), 0.0)[None],
        b_eq=[1.0],
        bounds=[*[(0.0, None)] * rows, (None, None)],
        method="highs-ds",
    )
    if not found.success:
        raise InputError(f"meta-solver nash: the linear program has no solution: {found.message}")
    mixture = np.maximum(found.x[:rows], 0.0)
    return np.asarray(mixture / mixture.sum())


@dataclass(frozen=True)
class ProjectedReplicator(MetaSolver):
    """Projected replicator dynamics: ``x <- P(x + dt x (u - x.u))`` with ``P`` onto mixtures of at least ``floor``.

    ``u`` is what strategies earn. From uniform mixtures, all players at once; the mean over ``steps`` is returned.
    ``dt`` has the unit 1 / utility. Source: arXiv 1711.00832, section 3.1; the step and the horizon ``dt * steps``
    are those of OpenSpiel with ten times the step. Needs numba.

    Raises :class:`InputError` where the population is too large for the floor.
    """

    floor: Annotated[float, Ge(0), Le(1)] = 1e-6
    dt: Annotated[float, Gt(0)] = 1e-2
    steps: Annotated[int, Ge(1)] = 10_000

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        check_floor("projected_replicator", self.floor, game)
        return replicator(game, self.floor, self.dt, self.steps)


@dataclass(frozen=True)
class AlphaRank(MetaSolver):
    """Marginals of alpha-rank: how long evolution by mutation and selection stays at each profile.

    A profile moves to one where a single player has another strategy that earns ``d`` more, at rate
    ``eta (1 - e^(-a d)) / (1 - e^(-a m d))`` (``eta / m`` for ``d = 0``), ``eta = 1 / sum over players of (size - 1)``;
    the stationary distribution is exact. For any number of players and any payoffs. Source: arXiv 1903.01373.

    intensity: ``a``, of selection, in 1 / utility.  size: ``m``, of the evolving populations.

    Raises :class:`InputError` for a metagame of more than ``PROFILES`` profiles.
    """

    intensity: Annotated[float, Gt(0)] = 10.0
    size: Annotated[int, Ge(2)] = 50

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        weights = self.stationary(game).reshape(game.sizes)
        axes = range(game.players)
        return tuple(weights.sum(axis=tuple(axis for axis in axes if axis != p)) for p in axes)

    def stationary(self, game: Metagame) -> Float64[ndarray, " profiles"]:
        """Share of time at each profile."""
        profiles, count = game.profiles, len(game.profiles)
        if count > PROFILES:
            raise InputError(
                f"meta-solver alpha_rank: {count:,} profiles are more than its {PROFILES:,}; "
                "stop earlier, or choose another meta-solver"
            )
        rates = np.zeros((count, count))
        strides = [int(np.prod(game.sizes[p + 1 :])) for p in range(game.players)]
        for player, size in enumerate(game.sizes):
            earned = game.expected[player].reshape(-1)
            away = np.arange(size) * strides[player] - profiles[:, player, None] * strides[player]
            to = np.arange(count)[:, None] + away
            rates[np.arange(count)[:, None], to] += self._fixation(earned[to] - earned[:, None])
        np.fill_diagonal(rates, 0.0)
        return _stationary(rates)

    def _fixation(self, gain: ndarray) -> ndarray:
        """How likely a mutant that earns ``gain`` more takes a population over."""
        scaled = np.clip(self.intensity * gain, -700.0 / self.size, 700.0 / self.size)
        even = np.abs(scaled) < 1e-14
        safe = np.where(even, 1.0, scaled)
        return np.where(even, 1.0 / self.size, np.expm1(-safe) / np.expm1(-self.size * safe))


def _stationary(rates: Float64[ndarray, "states states"]) -> Float64[ndarray, " states"]:
    """Of a chain with these rates, by state reduction (Grassmann, Taksar, Heyman): no subtraction, so none cancels."""
    rates = rates.copy()
    for last in range(len(rates) - 1, 0, -1):
        rates[:last, last] /= rates[last, :last].sum()
        rates[:last, :last] += np.outer(rates[:last, last], rates[last, :last])
    weights = np.ones(len(rates))
    for state in range(1, len(rates)):
        weights[state] = weights[:state] @ rates[:state, state]
        # Of strong selection they would overflow.
        weights[: state + 1] /= weights[: state + 1].max()
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class FictitiousPlay(MetaSolver):
    """Averages of fictitious play: all players answer the others' averages at once, the first of equal answers.

    From uniform mixtures, which count as one step of ``steps + 1``.
    """

    steps: Annotated[int, Ge(1)] = 1000

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        averages = [*game.uniform()]
        for step in range(1, self.steps + 1):
            best = [int(game.deviations(p, averages).argmax()) for p in range(game.players)]
            for average, answer in zip(averages, best, strict=True):
                average *= step / (step + 1)
                average[answer] += 1 / (step + 1)
        return tuple(averages)


@dataclass(frozen=True)
class HybridRegret(MetaSolver):
    """Smoothed optimistic regret matching (SHOR): optimistic regrets blended with a softmax of payoffs.

    Players in order, each against the others' newest mixtures ``s``, with ``u`` what strategies earn and
    ``c = u - mean(u)``: ``g = (1 + b) c - b c_before + d (1 - s)``, divided by ``max |g|``; ``R <- max(0, R + g)``;
    ``s = (1 - l) R / sum(R) + l softmax(u / t)``. The mean is unweighted over strategies. With the published
    settings it need not converge to an equilibrium, even of games with two strategies.

    blend: ``l``.  temperature: ``t``, in units of utility.  diversity: ``d``.  Each is ``(first, last)``, linear over
    ``over`` iterations of the population.  momentum: ``b``.  steps: ``(least, more for each strategy, most)``, by the
    strategies of player 0.  average: return the mean over the steps; the last mixtures otherwise.

    The defaults are those under which responses are trained; :meth:`evaluation` those by which mixtures are judged.
    Source: listing in the appendix of arXiv 2602.16928. Needs numba.
    """

    blend: tuple[float, float] = (0.3, 0.05)
    temperature: tuple[float, float] = (0.5, 0.01)
    diversity: tuple[float, float] = (0.05, 0.001)
    momentum: Annotated[float, Ge(0)] = 0.5
    steps: tuple[int, int, int] = (1000, 20, 5000)
    over: Annotated[int, Ge(1)] = 75
    average: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= blend <= 1 for blend in self.blend):
            raise InputError(f"hybrid_regret.blend = {self.blend}: both must be between 0 and 1")
        if not all(temperature > 0 for temperature in self.temperature):
            raise InputError(f"hybrid_regret.temperature = {self.temperature}: both must be above 0")
        if not all(diversity >= 0 for diversity in self.diversity):
            raise InputError(f"hybrid_regret.diversity = {self.diversity}: both must be at least 0")
        if self.steps[0] < 1 or self.steps[1] < 0 or self.steps[2] < self.steps[0]:
            raise InputError(f"hybrid_regret.steps = {self.steps}: needs 1 <= least <= most, and no fewer for more")

    @classmethod
    def evaluation(cls) -> HybridRegret:
        """The published settings by which a population's final mixtures are found."""
        return cls((0.01, 0.01), (0.001, 0.001), (0.0, 0.0), 0.2, (8000, 50, 15000), average=False)

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        share = min(1.0, iteration / self.over)
        blend, temperature, diversity = (
            first + share * (last - first) for first, last in (self.blend, self.temperature, self.diversity)
        )
        least, more, most = self.steps
        steps = min(most, least + more * (game.sizes[0] - 1))
        return hybrid(game, steps, blend, temperature, diversity, self.momentum, self.average)


@dataclass(frozen=True)
class RobustReplicator(MetaSolver):
    """Replicator dynamics on bounds of payoffs: strategies grow that may be good and are surely not far from the best.

    With ``l`` and ``h`` what strategies earn by the lowest and the highest payoff among worlds, ``m = x.l`` and ``b_k``
    the largest ``h`` other than that of ``k``: ``x_k <- P(x_k + dt x_k ((h_k - m) - (b_k - l_k)))``, from uniform
    mixtures, all players at once, until the upper bound of regret ``sum over players of max(h) - m`` is below a
    threshold that falls linearly from ``threshold[0]`` to ``threshold[1]`` over the first ``over`` iterations of the
    population: an early stop leaves mixtures spread out. ``dt`` has the unit 1 / utility.

    This is the rule of an earlier program by the authors of arXiv 2603.00374; that it is letter by letter the
    published one is a reconstruction. Needs numba. Raises :class:`InputError` as :class:`ProjectedReplicator` does.
    """

    threshold: tuple[float, float] = (5.0, 1e-5)
    over: Annotated[int, Ge(1)] = 20
    dt: Annotated[float, Gt(0)] = 1e-3
    floor: Annotated[float, Ge(0), Le(1)] = 1e-6
    steps: Annotated[int, Ge(1)] = 20_000

    def __call__(self, game: Metagame, iteration: int = 1) -> tuple[Mixture, ...]:
        check_floor("robust_replicator", self.floor, game)
        share = min(1.0, (iteration - 1) / self.over)
        threshold = self.threshold[0] + share * (self.threshold[1] - self.threshold[0])
        return robust_replicator(game, threshold, self.dt, self.floor, self.steps)


def check_floor(what: str, floor: float, game: Metagame) -> None:
    """Raise :class:`InputError` where mixtures cannot give every strategy at least ``floor``."""
    if floor * max(game.sizes) > 1.0:
        raise InputError(
            f"meta-solver {what}: floor = {floor:g} is infeasible for {max(game.sizes)} strategies; "
            f"it may be at most 1/{max(game.sizes)}"
        )


META_SOLVERS: dict[str, type[MetaSolver]] = {
    "uniform": Uniform,
    "newest": Newest,
    "nash": Nash,
    "prd": ProjectedReplicator,
    "alpha_rank": AlphaRank,
    "fictitious_play": FictitiousPlay,
}
"""By the name that ``psro`` knows them by."""


def support(mixtures: Sequence[Mixture], least: float = 1e-3) -> tuple[int, ...]:
    """Strategies of each player that are played with at least this probability."""
    return tuple(int((mixture >= least).sum()) for mixture in mixtures)
