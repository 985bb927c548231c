"""Games of OpenSpiel that are played: what those to move see, actors that say how they would move, and episodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int, Int64
from numpy import ndarray

from stratagem.errors import InputError
from stratagem.games.flat import FlatPlayer, Strategy
from stratagem.games.metagame import Mixture
from stratagem.games.spiel import PREFIX, spiel_game
from stratagem.seeding import derive, uniform

if TYPE_CHECKING:
    from stratagem.multiagent.policy import AgentsPolicy, Chances

OUTSIDE = -1
"""In place of an actor's number: somebody else moves at this seat."""

AT_ONCE = 1024
"""Episodes that are played side by side."""

_DRAWS = 2**40
"""Random numbers of an episode from this place on say who plays it; those before are of its moves."""


@dataclass(frozen=True)
class PlayedGame:
    """A game of OpenSpiel as it is played: turn by turn, with what a player knows as numbers.

    A player sees its information state as OpenSpiel's tensor has it, or else its observation, and its own number,
    one-hot. name: with or without ``spiel:``.

    Raises :class:`InputError` as :func:`~stratagem.games.spiel.spiel_game` does, and for a game without tensors.
    """

    name: str
    spiel: Any = field(init=False, repr=False, compare=False)
    players: int = field(init=False, compare=False)
    features: int = field(init=False, compare=False)
    actions: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        name = self.name.removeprefix(PREFIX)
        game = spiel_game(name)
        kind, players = game.get_type(), game.num_players()
        if kind.provides_information_state_tensor:
            size = game.information_state_tensor_size()
        elif kind.provides_observation_tensor:
            size = game.observation_tensor_size()
        else:
            raise InputError(
                f"game {name}: OpenSpiel does not say in numbers what a player knows, so no network can play"
            )
        found = {
            "name": name,
            "spiel": game,
            "players": players,
            "features": size + players,
            "actions": game.num_distinct_actions(),
        }
        for one, value in found.items():
            object.__setattr__(self, one, value)

    @property
    def remembered(self) -> bool:
        """Whether players see all they may remember, and not only what they observe at the moment."""
        known: bool = self.spiel.get_type().provides_information_state_tensor
        return known

    def check_player(self, what: str, player: int) -> None:
        """Raise :class:`InputError` when there is no player of this number. what: has it."""
        if not 0 <= player < self.players:
            raise InputError(f"{what} = {player}: game {self.name} has players 0 to {self.players - 1}")


@dataclass(frozen=True, eq=False)
class Seen:
    """What one player knows in some states in which it is to move, a row for each.

    observation: as numbers.  legal: which actions it may take.
    """

    game: PlayedGame
    player: int
    states: Sequence[Any]

    @cached_property
    def observation(self) -> Float32[ndarray, "rows features"]:
        """The game's tensors, and the player's number one-hot."""
        game, player = self.game, self.player
        rows = np.zeros((len(self.states), game.features), dtype=np.float32)
        known = game.features - game.players
        for row, state in zip(rows, self.states, strict=True):
            row[:known] = (
                state.information_state_tensor(player) if game.remembered else state.observation_tensor(player)
            )
        rows[:, known + player] = 1.0
        return rows

    @cached_property
    def legal(self) -> Bool[ndarray, "rows actions"]:
        """Actions by OpenSpiel's number."""
        rows = np.zeros((len(self.states), self.game.actions), dtype=bool)
        for row, state in zip(rows, self.states, strict=True):
            row[state.legal_actions()] = True
        return rows


# ---- actors ---------------------------------------------------------------------------------------------------------


class Actor(Protocol):
    """A strategy as it is played: how likely it is to take each action, given what a player knows."""

    def __call__(self, seen: Seen) -> Float64[ndarray, "rows actions"]:
        """Probabilities, 0 for actions that are not legal."""
        ...


@dataclass(frozen=True)
class UniformActor:
    """Takes every legal action equally often."""

    def __call__(self, seen: Seen) -> Float64[ndarray, "rows actions"]:
        return np.asarray(seen.legal / seen.legal.sum(1, keepdims=True))


@dataclass(frozen=True, eq=False)
class TableActor:
    """A strategy of an enumerated game, looked up by what its player knows.

    player: whose it is.  strategy: a probability for each of its sequences.
    """

    player: FlatPlayer
    strategy: Strategy

    def __call__(self, seen: Seen) -> Float64[ndarray, "rows actions"]:
        chances = np.zeros((len(seen.states), seen.game.actions))
        for row, state in zip(chances, seen.states, strict=True):
            number = self.player.numbers[state.information_state_string(seen.player)]
            row[state.legal_actions()] = self.strategy[self.player.first[number] : self.player.first[number + 1]]
        return chances


@dataclass(frozen=True, eq=False)
class NetworkActor:
    """A trained policy of one agent.

    greedy: takes what is most likely, and nothing else.
    """

    policy: AgentsPolicy
    greedy: bool = False

    @cached_property
    def _chances(self) -> Chances:
        return self.policy.chances()

    def __call__(self, seen: Seen) -> Float64[ndarray, "rows actions"]:
        from stratagem.multiagent.game import Frame

        rows = len(seen.states)
        nothing, alive = np.zeros((rows, 0), dtype=np.float32), np.ones((rows, 1), dtype=bool)
        frame = Frame(seen.observation[:, None], nothing, seen.legal[:, None], alive)
        chances = self._chances(frame)[:, 0].astype(np.float64)
        if self.greedy:
            return np.asarray(np.eye(chances.shape[1])[chances.argmax(1)])
        return np.asarray(chances / chances.sum(1, keepdims=True))


Actors = tuple[Sequence[Actor], ...]
"""By player."""


# ---- episodes -------------------------------------------------------------------------------------------------------


class Episodes:
    """Episodes of a game side by side, each of which follows from its seed and from who plays it.

    One random number decides each move of nature and of an actor, so that episodes of the same seed have the same
    chances as long as the same moves are made. Actors are asked once for all episodes in which they are to move.

    actors: of every player.  count: of episodes.
    """

    def __init__(self, game: PlayedGame, actors: Actors, count: int) -> None:
        self.game, self.actors = game, actors
        self.states: list[Any] = [None] * count
        self.seeds = np.zeros(count, dtype=np.int64)
        self.moves = np.zeros(count, dtype=np.int64)
        self.chosen = np.zeros((count, game.players), dtype=np.int64)

    def begin(
        self,
        episodes: Int[ndarray, " some"],
        seeds: Int64[ndarray, " some"],
        chosen: Int64[ndarray, "some players"],
    ) -> None:
        """From the start, up to the first move of somebody outside. chosen: numbers of actors, or ``OUTSIDE``."""
        self.seeds[episodes], self.moves[episodes], self.chosen[episodes] = seeds, 0, chosen
        for episode in episodes.tolist():
            self.states[episode] = self.game.spiel.new_initial_state()
        self._go_on(episodes)

    def act(self, episodes: Int[ndarray, " some"], actions: Int[ndarray, " some"]) -> None:
        """Somebody outside moves in these; then they go on to the next such move, or to their end."""
        self.moves[episodes] += 1
        for episode, action in zip(episodes.tolist(), actions.tolist(), strict=True):
            self.states[episode].apply_action(action)
        self._go_on(episodes)

    def over(self, episodes: Int[ndarray, " some"]) -> Bool[ndarray, " some"]:
        """Those that have ended."""
        return np.array([self.states[episode].is_terminal() for episode in episodes.tolist()], dtype=bool)

    def utilities(self, episodes: Int[ndarray, " some"]) -> Float64[ndarray, "some players"]:
        """What each player was paid so far."""
        found = np.array([self.states[episode].returns() for episode in episodes.tolist()], dtype=np.float64)
        return found.reshape(-1, self.game.players)

    def _go_on(self, episodes: Int[ndarray, " some"]) -> None:
        running = episodes
        while len(running):
            asked: dict[tuple[int, int], list[int]] = defaultdict(list)
            luck = _luck(self.seeds[running], self.moves[running])
            moved, drawn = [], {}
            for episode, number in zip(running.tolist(), luck.tolist(), strict=True):
                state = self.states[episode]
                player = OUTSIDE if state.is_terminal() else state.current_player()
                if state.is_chance_node():
                    state.apply_action(_outcome(state.chance_outcomes(), number))
                elif player < 0 or self.chosen[episode, player] == OUTSIDE:
                    continue
                else:
                    asked[player, int(self.chosen[episode, player])].append(episode)
                    drawn[episode] = number
                moved.append(episode)
            for (player, actor), theirs in asked.items():
                seen = Seen(self.game, player, [self.states[episode] for episode in theirs])
                chances = self.actors[player][actor](seen)
                actions = pick(chances, np.array([drawn[episode] for episode in theirs]))
                for state, action in zip(seen.states, actions.tolist(), strict=True):
                    state.apply_action(action)
            running = np.array(moved, dtype=np.int64)
            self.moves[running] += 1


def play_out(
    game: PlayedGame, actors: Actors, chosen: Int64[ndarray, "episodes players"], seeds: Int64[ndarray, " episodes"]
) -> Float64[ndarray, "episodes players"]:
    """What every player is paid in episodes of these seeds between actors of these numbers."""
    paid = np.zeros((len(seeds), game.players))
    for first in range(0, len(seeds), AT_ONCE):
        piece = slice(first, first + AT_ONCE)
        episodes = Episodes(game, actors, len(seeds[piece]))
        everyone = np.arange(len(seeds[piece]))
        episodes.begin(everyone, seeds[piece], chosen[piece])
        paid[piece] = episodes.utilities(everyone)
    return paid


def episode_seeds(count: int, seed: int, *path: int | str) -> Int64[ndarray, " count"]:
    """Seeds of so many episodes that are played for one purpose."""
    return np.array([derive(seed, *path, number) for number in range(count)], dtype=np.int64)


def drawn(mixtures: Sequence[Mixture], seeds: Int64[ndarray, " episodes"]) -> Int64[ndarray, "episodes players"]:
    """For episodes of these seeds the number of each player's strategy, drawn from its mixture."""
    chosen = [
        pick(np.broadcast_to(mixture, (len(seeds), len(mixture))), _luck(seeds, np.full_like(seeds, _DRAWS + player)))
        for player, mixture in enumerate(mixtures)
    ]
    return np.stack(chosen, 1)


def pick(chances: Float64[ndarray, "rows choices"], luck: Float64[ndarray, " rows"]) -> Int64[ndarray, " rows"]:
    """The choice of each row that a number in [0, 1) falls on; never one without a chance."""
    sums = chances.cumsum(1)
    return np.asarray((sums <= luck[:, None] * sums[:, -1:]).sum(1), dtype=np.int64)


def _luck(seeds: Int64[ndarray, " rows"], places: Int64[ndarray, " rows"]) -> Float64[ndarray, " rows"]:
    return np.asarray(uniform(torch.from_numpy(seeds), torch.from_numpy(places)).numpy())


def _outcome(outcomes: Sequence[tuple[int, float]], number: float) -> int:
    """Of nature, the move that a number in [0, 1) falls on."""
    for action, chance in outcomes:
        number -= chance
        if number < 0:
            return action
    return next(action for action, chance in reversed(outcomes) if chance > 0)
