"""Metagames: what every profile of strategies of a population earns, in one world or in several possible ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from stratagem.errors import InputError

Mixture: TypeAlias = "Float64[ndarray, ' strategies']"
"""Of one player: the probability of each strategy of the population."""


@dataclass(frozen=True, eq=False)
class Metagame:
    """The normal-form game between the strategies of a population.

    payoffs: ``[world, player, strategy of player 0, strategy of player 1, ...]``, in units of utility. A game that is
    known has one world; where it was estimated, each world is one estimate, such as a member of an ensemble.
    errors: standard errors of payoffs that are means over episodes.

    Raises :class:`InputError` for another shape, a player without strategies, and payoffs that are not finite.
    """

    payoffs: Float64[ndarray, "worlds players *own"]
    errors: Float64[ndarray, " players *own"] | None = None

    def __post_init__(self) -> None:
        payoffs = np.asarray(self.payoffs, np.float64)
        object.__setattr__(self, "payoffs", payoffs)
        shape = payoffs.shape
        if len(shape) < 3 or shape[1] != len(shape) - 2 or not shape[0]:
            raise InputError(f"metagame: payoffs must be [world, player, strategies of each player], not {shape}")
        if not payoffs.size:
            empty = [player for player, size in enumerate(shape[2:]) if not size]
            raise InputError(f"metagame: the population of player {empty[0]} is empty; every player needs a strategy")
        if not np.isfinite(payoffs).all():
            world, player, *profile = np.argwhere(~np.isfinite(payoffs))[0].tolist()
            raise InputError(f"metagame: payoff of player {player} in world {world} at {profile} is not finite")
        if self.errors is not None and self.errors.shape != shape[1:]:
            raise InputError(f"metagame: errors must be of the shape of a world, {shape[1:]}, not {self.errors.shape}")

    @classmethod
    def of_matrices(
        cls, first: Float64[ndarray, "rows columns"], second: Float64[ndarray, "rows columns"] | None = None
    ) -> Metagame:
        """Of two players, in one world. second: payoffs of the column player; minus those of the first by default."""
        first = np.asarray(first, np.float64)
        return cls(np.stack([first, -first if second is None else np.asarray(second, np.float64)])[None])

    @property
    def players(self) -> int:
        """How many."""
        return int(self.payoffs.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Strategies of each player."""
        return self.payoffs.shape[2:]

    @cached_property
    def expected(self) -> Float64[ndarray, " players *own"]:
        """Mean payoffs over the worlds."""
        return np.asarray(self.payoffs.mean(0))

    @cached_property
    def lower(self) -> Float64[ndarray, " players *own"]:
        """The least of each payoff over the worlds."""
        return np.asarray(self.payoffs.min(0))

    @cached_property
    def upper(self) -> Float64[ndarray, " players *own"]:
        """The most of each payoff over the worlds."""
        return np.asarray(self.payoffs.max(0))

    @cached_property
    def profiles(self) -> Int64[ndarray, "profiles players"]:
        """Strategy of every player in each profile, in the order of the flattened payoffs."""
        return np.indices(self.sizes).reshape(self.players, -1).T.astype(np.int64)

    def require_two_player_zero_sum(self, what: str) -> None:
        """Raise :class:`InputError` for a metagame of another kind, naming ``what`` needs it."""
        if self.players != 2:
            raise InputError(f"{what}: the game has {self.players} players; it needs two with opposite payoffs")
        most = float(np.abs(self.expected.sum(0)).max())
        if most > 1e-9 * max(1.0, float(np.abs(self.expected).max())):
            raise InputError(
                f"{what}: the game is not zero-sum (payoffs of a profile add up to {most:g}, or minus that); "
                "it needs two players with opposite payoffs"
            )

    def uniform(self) -> tuple[Mixture, ...]:
        """All strategies of every player equally often."""
        return tuple(np.full(size, 1.0 / size) for size in self.sizes)

    def deviations(
        self, player: int, mixtures: Sequence[Mixture], payoffs: Float64[ndarray, " players *own"] | None = None
    ) -> Float64[ndarray, " strategies"]:
        """What each strategy of a player earns against the others' mixtures. payoffs: the expected ones by default."""
        earned = (self.expected if payoffs is None else payoffs)[player]
        for other in reversed(range(self.players)):
            if other != player:
                earned = np.tensordot(earned, mixtures[other], (other, 0))
        return np.asarray(earned)

    def against(
        self, player: int, mixtures: Sequence[Mixture]
    ) -> tuple[Float64[ndarray, "strategies profiles"], Mixture]:
        """Expected payoffs of a player's strategies at each joint choice of the others, and how likely each is."""
        table = np.moveaxis(self.expected[player], player, 0).reshape(self.sizes[player], -1)
        return table, joint([mixture for other, mixture in enumerate(mixtures) if other != player])

    def values(self, mixtures: Sequence[Mixture]) -> Float64[ndarray, " players"]:
        """What every player earns on average."""
        return np.array([mixtures[p] @ self.deviations(p, mixtures) for p in range(self.players)])

    def nash_conv(self, mixtures: Sequence[Mixture]) -> float:
        """Sum over players of what their best strategy of the population would gain."""
        gains = (self.deviations(p, mixtures) for p in range(self.players))
        return float(sum(max(earned.max() - mixtures[p] @ earned, 0.0) for p, earned in enumerate(gains)))

    def upper_regret(self, mixtures: Sequence[Mixture]) -> float:
        """Most that the players together may regret: best upper payoff less mean lower payoff, summed over players."""
        return float(
            sum(
                self.deviations(p, mixtures, self.upper).max() - mixtures[p] @ self.deviations(p, mixtures, self.lower)
                for p in range(self.players)
            )
        )


def joint(mixtures: Sequence[Mixture]) -> Float64[ndarray, " profiles"]:
    """The product distribution over joint choices; one certain choice of nobody."""
    weights = np.ones(1)
    for mixture in mixtures:
        weights = np.outer(weights, mixture).reshape(-1)
    return weights
