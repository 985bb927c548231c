"""Rosters: the strategies of a population and what they earn against each other, computed or estimated by playing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from annotated_types import Ge
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor

from stratagem.errors import InputError
from stratagem.games.flat import FlatGame, Strategy
from stratagem.games.metagame import Metagame, Mixture
from stratagem.games.oracles import Oracle, Round, expected, profile_payoffs
from stratagem.games.play import measured_exactly
from stratagem.games.played import Actor, Actors, NetworkActor, PlayedGame, UniformActor, drawn, episode_seeds, play_out
from stratagem.part import Part

POPULATION = "population"
"""Folder of a run in which the networks of a population are."""


@dataclass(frozen=True, eq=False)
class Growth:
    """What an iteration has brought. gains: what each player's response earns more than its mixture.

    new: whether each player's response was not in its population yet.  errors: standard errors of estimated gains;
    none of those that are exact.
    """

    gains: tuple[float, ...]
    new: tuple[bool, ...]
    errors: tuple[float, ...] = ()

    def shown(self, deviations: float) -> float:
        """The largest gain less so many standard errors."""
        errors = self.errors or (0.0,) * len(self.gains)
        return max(gain - deviations * error for gain, error in zip(self.gains, errors, strict=True))


class Roster(ABC):
    """What the strategies of a population are, how they are answered, and what they are worth.

    strategies: of each player; what one is, is the roster's own affair.  metagame: between them.
    """

    strategies: tuple[Any, ...]
    metagame: Metagame

    @property
    @abstractmethod
    def game(self) -> FlatGame | PlayedGame:
        """Where the strategies play."""

    @abstractmethod
    def respond(self, oracle: Oracle, mixtures: Sequence[Mixture], iteration: int) -> tuple[list[Any], Growth]:
        """A response of every player, and what they gain. Raises :class:`InputError` for an oracle of another kind."""

    @abstractmethod
    def add(self, responses: Sequence[Any], wanted: Sequence[bool]) -> None:
        """Add the responses of the players that want theirs."""

    @abstractmethod
    def playing(self, mixtures: Sequence[Mixture]) -> tuple[Any, ...]:
        """What plays mixtures, by player."""

    @abstractmethod
    def measured(self, final: Sequence[Mixture], answered: Sequence[Mixture]) -> dict[str, float]:
        """How good the final mixtures are, and those that are answered next."""

    @abstractmethod
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of it."""

    def save(self, directory: Path) -> list[list[dict[str, Any]]] | None:
        """Write the strategies that need files of their own, and say by player where each is; None where none does."""
        return None


# ---- exact ----------------------------------------------------------------------------------------------------------


class ExactRoster(Roster):
    """Strategies of an enumerated game, rows for each player; all that is said of them is exact.

    strategies: to begin with; by default the uniform one.  worlds: what is known of the game, such as games with
    utilities learned from a log; by default the game itself.

    Raises :class:`InputError` for a player without strategies and for strategies or worlds that do not fit the game.
    """

    def __init__(
        self,
        game: FlatGame,
        strategies: Sequence[Strategy] | None = None,
        worlds: Sequence[FlatGame] | None = None,
    ) -> None:
        self._game = game
        self.worlds = (game,) if worlds is None else tuple(worlds)
        if not self.worlds or any(world.sequence.shape != game.sequence.shape for world in self.worlds):
            raise InputError(f"population: worlds must be at least one game on the tree of {game.name}")
        begin = [one[None] for one in game.uniform()] if strategies is None else strategies
        self.strategies = tuple(_checked(game, number, rows) for number, rows in enumerate(begin))
        if len(self.strategies) != len(game.players):
            raise InputError(f"population: {len(self.strategies)} players have strategies; needs {len(game.players)}")
        self._update()

    @property
    def game(self) -> FlatGame:
        """The true one, whatever is known of it."""
        return self._game

    def respond(self, oracle: Oracle, mixtures: Sequence[Mixture], iteration: int) -> tuple[list[Strategy], Growth]:
        now = Round(self.worlds, self.strategies, tuple(mixtures), iteration)
        game, players = now.expected, range(len(self._game.players))
        responses = [oracle(player, now) for player in players]
        earned = [game.sequence_values(player, now.mixed) for player in players]
        new = tuple(not (self.strategies[p] == responses[p]).all(-1).any() for p in players)
        gains = tuple(float(earned[p] @ (game.players[p].plan(responses[p]) - now.mixed[p])) for p in players)
        return responses, Growth(gains, new)

    def add(self, responses: Sequence[Strategy], wanted: Sequence[bool]) -> None:
        self.strategies = tuple(
            np.concatenate([rows, response[None]]) if wants else rows
            for rows, response, wants in zip(self.strategies, responses, wanted, strict=True)
        )
        self._update()

    def _update(self) -> None:
        self._plans = self._game.plans(self.strategies)
        self.metagame = Metagame(profile_payoffs(self.worlds, self._plans))

    def playing(self, mixtures: Sequence[Mixture]) -> tuple[Strategy, ...]:
        """A strategy for each player that reaches every ending as often."""
        return tuple(
            player.normalized(mixture @ plan)
            for player, mixture, plan in zip(self._game.players, mixtures, self._plans, strict=True)
        )

    def measured(self, final: Sequence[Mixture], answered: Sequence[Mixture]) -> dict[str, float]:
        played = self.playing(final)
        found = measured_exactly(self._game, played, self.playing(answered))
        if len(self.worlds) > 1:
            found["exploitability/believed"] = float(expected(self.worlds).exploitability(played))
            found["regret/upper_bound"] = self.metagame.upper_regret(final)
            found["payoff_width"] = float((self.metagame.upper - self.metagame.lower).max())
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Strategies by row, and payoffs."""
        rows = {f"player{p}": torch.from_numpy(one) for p, one in enumerate(self.strategies)}
        return {"population": rows, "metagame": {"payoffs": torch.from_numpy(self.metagame.payoffs)}}


def _checked(game: FlatGame, number: int, rows: Strategy) -> Strategy:
    """A player's strategies, when they are some of its."""
    if number >= len(game.players):
        raise InputError(f"population: strategies for player {number}, but {game.name} has {len(game.players)} players")
    player = game.players[number]
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != player.sequences:
        raise InputError(f"population: strategies of player {number} must be rows of {player.sequences} sequences")
    if not len(rows):
        raise InputError(f"population: player {number} has no strategy; every player needs at least one")
    if not np.isfinite(rows).all() or (rows < 0).any() or not np.allclose(rows, player.normalized(rows), atol=1e-9):
        raise InputError(f"population: strategies of player {number} must be probabilities in every state")
    return rows


# ---- by playing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trials(Part):
    """How payoffs are estimated where a game is played: means of so many episodes, with standard errors.

    Every profile of the metagame plays the same episodes, as far as chance goes, so that differences between profiles
    are known better than their payoffs. Gains are measured in episodes of their own, in which neither the mixtures nor
    the responses were found, so that they are not flattered.

    episodes: for each profile and each figure.  seed: of them.
    """

    kind: ClassVar[str] = "trials"

    episodes: Annotated[int, Ge(2)] = 1000
    seed: int = 0


class Mixed(NamedTuple):
    """A mixture over actors, of which one is drawn for an episode."""

    actors: Sequence[Actor]
    mixture: Mixture


class PlayedRoster(Roster):
    """Actors of a game that is played; all that is said of them is estimated from episodes.

    actors: of each player, to begin with; by default the uniform one.  trials: of every estimate.

    Raises :class:`InputError` for a player without actors.
    """

    def __init__(self, game: PlayedGame, trials: Trials | None = None, actors: Actors | None = None) -> None:
        self._game, self.trials = game, trials or Trials()
        self.strategies: Actors = tuple((UniformActor(),) for _ in range(game.players)) if actors is None else actors
        if len(self.strategies) != game.players:
            raise InputError(f"population: {len(self.strategies)} players have actors; {game.name} has {game.players}")
        for player, mine in enumerate(self.strategies):
            if not mine:
                raise InputError(f"population: player {player} has no actor; every player needs at least one")
        self._seeds = episode_seeds(self.trials.episodes, self.trials.seed, "payoffs")
        self.metagame = self._estimated(self.strategies, None)

    @classmethod
    def restored(cls, game: PlayedGame, trials: Trials, actors: Actors, metagame: Metagame) -> PlayedRoster:
        """One whose payoffs have been estimated before. Raises :class:`InputError` when they are of other actors."""
        roster = cls.__new__(cls)
        roster._game, roster.trials, roster.strategies, roster.metagame = game, trials, actors, metagame
        if metagame.errors is None or metagame.sizes != tuple(len(mine) for mine in actors):
            raise InputError(f"population: payoffs are of {metagame.sizes} strategies; there are others")
        roster._seeds = episode_seeds(trials.episodes, trials.seed, "payoffs")
        return roster

    @property
    def game(self) -> PlayedGame:
        """The one that is played."""
        return self._game

    def respond(self, oracle: Oracle, mixtures: Sequence[Mixture], iteration: int) -> tuple[list[Actor], Growth]:
        game, players, answered = self._game, range(self._game.players), tuple(mixtures)
        responses = [oracle.learn(player, game, self.strategies, answered, iteration) for player in players]
        seeds = self._fresh("gain", iteration)
        chosen = drawn(mixtures, seeds)
        before = play_out(game, self.strategies, chosen, seeds)
        gains = []
        for player, response in enumerate(responses):
            actors = tuple((response,) if p == player else mine for p, mine in enumerate(self.strategies))
            instead = np.where(np.arange(game.players) == player, 0, chosen)
            gains.append(mean_and_error(play_out(game, actors, instead, seeds)[:, player] - before[:, player]))
        return responses, Growth(
            tuple(float(g) for g, _ in gains), (True,) * game.players, tuple(float(e) for _, e in gains)
        )

    def add(self, responses: Sequence[Actor], wanted: Sequence[bool]) -> None:
        actors = tuple(
            (*mine, response) if wants else mine
            for mine, response, wants in zip(self.strategies, responses, wanted, strict=True)
        )
        # Whoever interrupts the episodes leaves all as it was.
        self.strategies, self.metagame = actors, self._estimated(actors, self.metagame)

    def _estimated(self, actors: Actors, known: Metagame | None) -> Metagame:
        """The metagame of actors; profiles whose payoffs are known are not played again."""
        sizes = tuple(len(mine) for mine in actors)
        payoffs, errors = np.full((2, len(sizes), *sizes), math.nan)
        if known is not None and known.errors is not None:
            block = (slice(None), *(slice(size) for size in known.sizes))
            payoffs[block], errors[block] = known.payoffs[0], known.errors
        count = self.trials.episodes
        for profile in np.argwhere(np.isnan(payoffs[0])).tolist():
            chosen: Int64[ndarray, "episodes players"] = np.tile(np.array(profile, dtype=np.int64), (count, 1))
            paid = play_out(self._game, actors, chosen, self._seeds)
            place = (slice(None), *profile)
            payoffs[place], errors[place] = mean_and_error(paid)
        return Metagame(payoffs[None], errors)

    def playing(self, mixtures: Sequence[Mixture]) -> tuple[Mixed, ...]:
        return tuple(Mixed(actors, mixture) for actors, mixture in zip(self.strategies, mixtures, strict=True))

    def measured(self, final: Sequence[Mixture], answered: Sequence[Mixture]) -> dict[str, float]:
        """What the first player earns by the final mixtures, and every player against uniform ones, with errors."""
        game, seeds = self._game, self._fresh("measured")
        chosen = drawn(final, seeds)
        value, error = mean_and_error(play_out(game, self.strategies, chosen, seeds)[:, 0])
        found = {"value": float(value), "value/error": float(error)}
        for player in range(game.players):
            actors = tuple(mine if p == player else (UniformActor(),) for p, mine in enumerate(self.strategies))
            own = np.where(np.arange(game.players) == player, chosen, 0)
            earned, error = mean_and_error(play_out(game, actors, own, seeds)[:, player])
            found |= {f"against_uniform/player{player}": float(earned), f"against_uniform/error{player}": float(error)}
        return found

    def _fresh(self, *purpose: int | str) -> Int64[ndarray, " episodes"]:
        return episode_seeds(self.trials.episodes, self.trials.seed, *purpose)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Payoffs and their errors; the actors have folders of their own."""
        assert self.metagame.errors is not None
        named = {"payoffs": self.metagame.payoffs, "errors": self.metagame.errors}
        return {"metagame": {name: torch.from_numpy(one) for name, one in named.items()}}

    def save(self, directory: Path) -> list[list[dict[str, Any]]]:
        """A folder for each network that has none yet, ``player0/1`` for the first after the uniform one.

        Raises :class:`InputError` for actors that are neither networks nor uniform.
        """
        return [
            [_saved(actor, directory, f"player{player}/{number}", self._game) for number, actor in enumerate(mine)]
            for player, mine in enumerate(self.strategies)
        ]


def _saved(actor: Actor, directory: Path, folder: str, game: PlayedGame) -> dict[str, Any]:
    if isinstance(actor, UniformActor):
        return {"kind": "uniform"}
    if not isinstance(actor, NetworkActor):
        raise InputError(f"population: a {type(actor).__name__} cannot be saved; networks and the uniform actor can")
    if not (directory / folder).is_dir():
        (directory / folder).parent.mkdir(parents=True, exist_ok=True)
        actor.policy.save(directory / folder, f"# A response learned by playing {game.name}\n")
    return {"kind": "network", "folder": folder, "greedy": actor.greedy}


def read_actors(directory: Path, told: Sequence[Sequence[Mapping[str, Any]]]) -> Actors:
    """What :meth:`PlayedRoster.save` wrote. Raises :class:`InputError` for a folder that is missing or damaged."""
    from stratagem.multiagent.policy import AgentsPolicy

    def read(one: Mapping[str, Any]) -> Actor:
        if one["kind"] == "uniform":
            return UniformActor()
        return NetworkActor(AgentsPolicy.from_directory(directory / one["folder"]).frozen(), bool(one["greedy"]))

    return tuple(tuple(read(one) for one in mine) for mine in told)


def mean_and_error(
    paid: Float64[ndarray, "episodes ..."],
) -> tuple[Float64[ndarray, "..."], Float64[ndarray, "..."]]:
    """Mean over episodes and its standard error, ``s / sqrt(n)``."""
    return np.asarray(paid.mean(0)), np.asarray(paid.std(0, ddof=1) / math.sqrt(len(paid)))
