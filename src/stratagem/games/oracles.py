"""Oracles: which strategy a player adds to its population, exact on flat games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Float64
from numpy import ndarray

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.games.metagame import Mixture, joint
from stratagem.part import Part

if TYPE_CHECKING:
    from stratagem.games.played import Actor, Actors, PlayedGame


@dataclass(frozen=True, eq=False)
class Round:
    """What an oracle may look at.

    worlds: games on one tree, one for each estimate of what its endings pay; a single one where that is known.
    populations: of each player, strategies as rows.  mixtures: over them.  iteration: from 1 on.
    """

    worlds: tuple[FlatGame, ...]
    populations: tuple[Strategy, ...]
    mixtures: tuple[Mixture, ...]
    iteration: int

    @cached_property
    def expected(self) -> FlatGame:
        """The game with mean utilities."""
        return expected(self.worlds)

    @cached_property
    def plans(self) -> tuple[Strategy, ...]:
        """Realization plans of the populations."""
        return self.expected.plans(self.populations)

    @cached_property
    def mixed(self) -> tuple[Strategy, ...]:
        """Realization plans of the mixtures: means of the strategies' plans."""
        return tuple(mixture @ plan for mixture, plan in zip(self.mixtures, self.plans, strict=True))


class Oracle(Part):
    """Finds a response to the others' mixtures.

    plays: whether it finds it by playing, so that the game need not be enumerated.
    """

    kind: ClassVar[str] = "oracle"
    plays: ClassVar[bool] = False

    def __call__(self, player: int, now: Round) -> Strategy:
        """The strategy to add, where the game is enumerated."""
        raise NotImplementedError

    def learn(
        self, player: int, game: PlayedGame, actors: Actors, mixtures: tuple[Mixture, ...], iteration: int
    ) -> Actor:
        """The actor to add, where the game is played: a response to mixtures over the others' actors.

        Raises :class:`InputError` for an oracle that does not play.
        """
        raise InputError(f"oracle {self.part_name()}: needs a game that is enumerated; {game.name} is played")


@dataclass(frozen=True)
class BestResponse(Oracle):
    """The pure strategy that earns most, exactly; of mean utilities where there are several worlds."""

    def __call__(self, player: int, now: Round) -> Strategy:
        return now.expected.players[player].best(now.expected.sequence_values(player, now.mixed))[1]


@dataclass(frozen=True)
class ConservativeResponse(Oracle):
    """The pure strategy that earns most where the worlds agree: ``max E[w u - kappa d]``.

    ``d`` of an ending is ``max over worlds e of mean over players p of |mean_e' u_e'(p) - u_e(p)|``. Each opponent
    plays its mixture (``w = 1`` when all do) or, with probability ``alpha``, at random (``w = 0``), so that endings
    reached by their deviations become known, too. Everything is exact.

    kappa: price of disagreement.  alpha: first chance of a random opponent; falls linearly to 0 over ``over``
    iterations. Source: arXiv 2603.00374; weights by an earlier program of its authors (a reconstruction).
    """

    kappa: Annotated[float, Ge(0)] = 1.0
    alpha: Annotated[float, Ge(0), Le(1)] = 0.0
    over: Annotated[int, Ge(1)] = 10

    def __call__(self, player: int, now: Round) -> Strategy:
        alpha = self.alpha * max(0.0, 1.0 - (now.iteration - 1) / self.over)
        game = now.expected
        paid = (1.0 - alpha) ** (len(game.players) - 1) * game.sequence_values(player, now.mixed)
        random = game.plans(game.uniform())
        seen = [(1.0 - alpha) * plan + alpha * other for plan, other in zip(now.mixed, random, strict=True)]
        price = np.repeat(disagreement(now.worlds)[:, None], len(game.players), axis=1)
        doubts = game.with_utility(price).sequence_values(player, seen)
        return game.players[player].best(paid - self.kappa * doubts)[1]


@dataclass(frozen=True)
class RiskAverseResponse(Oracle):
    """The strategy with the best ``mean - aversion * variance`` of payoff over the others' strategies.

    The variance is of the expected payoffs ``R_k`` against the strategies ``k`` the others draw from their mixtures,
    which tremble: with probability ``tremble`` they draw evenly. A concave quadratic in the player's plan, maximized
    over all mixed strategies by adding best responses to its gradient until none gains more than ``precision``.

    aversion: in 1 / utility; 0 is the best response.  steps: most strategies that are mixed.
    """

    aversion: Annotated[float, Ge(0)] = 1.0
    tremble: Annotated[float, Ge(0), Le(1)] = 0.0
    precision: Annotated[float, Ge(0)] = 1e-9
    steps: Annotated[int, Ge(1)] = 200

    def __call__(self, player: int, now: Round) -> Strategy:
        from stratagem.games.risk import quadratic_on_simplex, trembling

        game, tree = now.expected, now.expected.players[player]
        mean = game.sequence_values(player, now.mixed)
        spread = values_against_each(game, player, now.plans)
        weights = joint([trembling(x, self.tremble) for other, x in enumerate(now.mixtures) if other != player])
        centered = spread - weights @ spread
        pool = tree.plan(tree.best(mean)[1])[None]
        for _ in range(self.steps):
            risk = pool @ centered.T
            mixture = quadratic_on_simplex(pool @ mean, self.aversion * (risk * weights) @ risk.T)
            plan = mixture @ pool
            slope = mean - 2.0 * self.aversion * (weights * (centered @ plan)) @ centered
            most, better = tree.best(slope)
            if most - slope @ plan <= self.precision * max(1.0, float(abs(most))):
                break
            pool = np.concatenate([pool, tree.plan(better)[None]])
        return tree.normalized(plan)


def expected(worlds: Sequence[FlatGame]) -> FlatGame:
    """The game with mean utilities of the worlds."""
    if len(worlds) == 1:
        return worlds[0]
    return worlds[0].with_utility(np.mean([world.utility for world in worlds], axis=0))


def disagreement(worlds: Sequence[FlatGame]) -> Float64[ndarray, " terminals"]:
    """By ending: the largest distance, mean over players, of a world's utilities from the worlds' mean."""
    utilities = np.stack([world.utility for world in worlds])
    return np.asarray(np.abs(utilities - utilities.mean(0)).mean(2).max(0))


def values_against_each(
    game: FlatGame, player: int, plans: Sequence[Strategy]
) -> Float64[ndarray, "profiles sequences"]:
    """What each sequence of a player earns against every joint choice of the others' plans, the last one's fastest."""
    others = [p for p in range(len(plans)) if p != player]
    spread = list(plans)
    for place, other in enumerate(others):
        ones = [1] * len(others)
        ones[place] = len(plans[other])
        spread[other] = plans[other].reshape(*ones, -1)
    return game.sequence_values(player, spread).reshape(-1, game.players[player].sequences)


def profile_payoffs(worlds: Sequence[FlatGame], plans: Sequence[Strategy]) -> Float64[ndarray, "worlds players *own"]:
    """What every profile of the populations' plans earns every player in every world, exactly."""
    sizes = [len(plan) for plan in plans]
    if min(sizes) == 0:
        raise InputError(f"population: player {sizes.index(0)} has no strategy; every player needs at least one")
    found = []
    for world in worlds:
        by_player = []
        for player, plan in enumerate(plans):
            others = [size for p, size in enumerate(sizes) if p != player]
            earned = values_against_each(world, player, plans) @ plan.T
            by_player.append(np.moveaxis(earned.reshape(*others, sizes[player]), -1, player))
        found.append(np.stack(by_player))
    return np.stack(found)
