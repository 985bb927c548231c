"""Models: what a population believes a game pays: the truth, or what a log of play has taught an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int64
from numpy import ndarray

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.part import Part
from stratagem.seeding import numpy_generator


class Model(Part):
    """From a game to the worlds in which responses and payoffs are computed: games on the same tree."""

    kind: ClassVar[str] = "game_model"

    def __call__(self, game: FlatGame) -> tuple[FlatGame, ...]:
        """The worlds."""
        raise NotImplementedError


@dataclass(frozen=True)
class Known(Model):
    """The game as it is."""

    def __call__(self, game: FlatGame) -> tuple[FlatGame, ...]:
        return (game,)


@dataclass(frozen=True)
class Logged(Model):
    """An ensemble that has seen nothing but a log of play: one world for each member.

    Of ``episodes`` played by uniform strategies it sees which ending was reached and what it paid; for any other log
    there is :meth:`fit`. The tree and nature's chances are taken as known, so what has to be learned is what endings
    pay. A member is a ridge regression of utilities on features plus a random prior of its own: where the log has
    endings with such features the members agree, elsewhere each keeps its prior.

    members: of the ensemble.  scale: deviation of the priors, in units of the log's own deviation.
    ridge: how many endings of its own a prior counts for.
    """

    episodes: Annotated[int, Ge(1)] = 300
    members: Annotated[int, Ge(1)] = 4
    scale: Annotated[float, Ge(0)] = 1.0
    ridge: Annotated[float, Gt(0)] = 0.01
    seed: int = 0

    def __call__(self, game: FlatGame) -> tuple[FlatGame, ...]:
        return self.fit(game, play_log(game, game.uniform(), self.episodes, self.seed))

    def fit(
        self,
        game: FlatGame,
        log: Int64[ndarray, " episodes"],
        features: Float64[ndarray, "terminals features"] | None = None,
    ) -> tuple[FlatGame, ...]:
        """Worlds of a log: the number of the ending of each episode, whose utilities are read from ``game``.

        features: of every ending; by default :func:`path_features`. Utilities of zero-sum games stay opposite.
        Raises :class:`InputError` for an empty log or one with endings there are not.
        """
        log = np.asarray(log, np.int64)
        if not log.size or log.min() < 0 or log.max() >= len(game.chance):
            raise InputError(f"log: needs episodes, each of an ending from 0 to {len(game.chance) - 1}")
        features = path_features(game) if features is None else features
        if features.shape[:1] != game.chance.shape or not np.isfinite(features).all():
            raise InputError(f"log: features must be finite, one row for each of {len(game.chance)} endings")
        counts = np.bincount(log, minlength=len(game.chance)).astype(np.float64)
        seen, paid = features[counts > 0], game.utility[counts > 0]
        weights = counts[counts > 0, None]
        center, deviation = np.average(paid, axis=0, weights=weights[:, 0]), float(paid.std()) or 1.0
        gram = seen.T @ (weights * seen) + self.ridge * np.eye(features.shape[1])
        worlds = []
        for member in range(self.members):
            draw = numpy_generator(self.seed, "prior", member)
            weight = draw.standard_normal((features.shape[1], game.utility.shape[1]))
            if game.zero_sum:
                weight -= weight.mean(1, keepdims=True)
            prior = features @ weight * (self.scale * deviation / np.sqrt(np.mean((features**2).sum(1))))
            rest = paid - center - prior[counts > 0]
            learned = features @ np.linalg.solve(gram, seen.T @ (weights * rest))
            worlds.append(game.with_utility(center + prior + learned, f"{game.name}, member {member}"))
        return tuple(worlds)


def play_log(game: FlatGame, strategies: Sequence[Strategy], episodes: int, seed: int) -> Int64[ndarray, " episodes"]:
    """Endings of episodes between strategies, by number, drawn with the chances the game gives them."""
    if episodes < 1:
        raise InputError(f"episodes = {episodes}: must be at least 1")
    reach = game.chance.copy()
    for plan, last in zip(game.plans(strategies), game.sequence.T, strict=True):
        reach *= plan[last]
    drawn: ndarray = numpy_generator(seed, "log").choice(len(reach), size=episodes, p=reach / reach.sum())
    return drawn.astype(np.int64)


def path_features(game: FlatGame) -> Float64[ndarray, "terminals features"]:
    """Of every ending: 1, and for each sequence of each player whether it lies on the way there."""
    blocks = [np.ones((len(game.chance), 1))]
    for number, player in enumerate(game.players):
        on_way = np.eye(player.sequences)
        for state, parent in enumerate(player.parent):
            own = slice(int(player.first[state]), int(player.first[state + 1]))
            on_way[own] += on_way[parent]
        blocks.append(on_way[game.sequence[:, number], 1:])
    return np.concatenate(blocks, axis=1)
