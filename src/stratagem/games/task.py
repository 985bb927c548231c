"""One seat of a game of OpenSpiel as a task: a learner among players that are drawn from mixtures for each episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from stratagem.errors import InputError
from stratagem.games.metagame import Mixture
from stratagem.games.opponents import read_opponents
from stratagem.games.played import OUTSIDE, Actors, Episodes, PlayedGame, Seen, UniformActor, drawn
from stratagem.games.spiel import PREFIX
from stratagem.multiagent.game import Frame, Outcome
from stratagem.tasks.adapter import episode_seed
from stratagem.tasks.options import check_names
from stratagem.tasks.task import Split


@dataclass(frozen=True, eq=False)
class SeatTask:
    """A game of OpenSpiel for one learner at one seat; all others are drawn per episode, in proportion to mixtures.

    The learner sees what :class:`PlayedGame` shows a player, and is paid its utility when the game is over, in the
    game's units. An episode that ends before the learner was to move has one turn in which whatever it does is legal
    and changes nothing. Nature, the others and, without ``seat``, the learner's seat follow from the episode's seed.

    game: that is played.  seat: the learner's; None: another one from episode to episode.
    actors: of every player; by default the uniform one alone.  mixtures: over them; by default each equally often.
    source: where these came from, for the name.

    Raises :class:`InputError` for a seat that is none and for players without actors or with other mixtures.
    """

    family: ClassVar[str] = "multiagent"
    agents: ClassVar[int] = 1
    continuous: ClassVar[bool] = False
    shared_reward: ClassVar[bool] = True
    mortal: ClassVar[bool] = False

    game: PlayedGame
    seat: int | None = None
    actors: Actors | None = None
    mixtures: tuple[Mixture, ...] | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        players = range(self.game.players)
        if self.seat is not None:
            self.game.check_player(f"task {self.name}: seat", self.seat)
        if self.actors is None:
            object.__setattr__(self, "actors", tuple((UniformActor(),) for _ in players))
        assert self.actors is not None
        sizes = [len(actors) for actors in self.actors]
        if len(sizes) != len(players) or not all(sizes):
            needed = f"{len(players)} players need at least one each"
            raise InputError(f"task {self.name}: numbers of actors by player are {sizes}; {needed}")
        if self.mixtures is None:
            object.__setattr__(self, "mixtures", tuple(np.full(size, 1.0 / size) for size in sizes))
        assert self.mixtures is not None
        if [len(mixture) for mixture in self.mixtures] != sizes:
            raise InputError(f"task {self.name}: mixtures must have a probability for each of the actors, {sizes}")

    @property
    def name(self) -> str:
        """How the command line calls it."""
        own = {"seat": self.seat, "opponents": self.source}
        options = [f"{name}={value}" for name, value in own.items() if value is not None]
        return ",".join([f"{PREFIX}{self.game.name}", *options])

    @property
    def description(self) -> str:
        """One line."""
        return f"a seat of OpenSpiel's {self.game.name}, the others played by given strategies"

    @property
    def features(self) -> int:
        """Numbers in what the learner sees."""
        return self.game.features

    @property
    def state_features(self) -> int:
        """Numbers a critic may see: those the learner sees."""
        return self.game.features

    @property
    def actions(self) -> int:
        """All of the game; which are legal differs."""
        return self.game.actions

    def copies(self, count: int) -> SeatCopies:
        """So many copies, in no episode yet."""
        return SeatCopies(self, count)

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode: even for training, odd for held-out ones."""
        return episode_seed(split, number)


class SeatCopies:
    """Copies of a seat: what happens in them follows from their seeds and from what the learner does."""

    def __init__(self, task: SeatTask, count: int) -> None:
        assert task.actors is not None
        self._task, self._count = task, count
        self._episodes = Episodes(task.game, task.actors, count)
        self._seats = np.zeros(count, dtype=np.int64)

    def reset(self, copies: Int[np.ndarray, " some"], seeds: Int64[np.ndarray, " some"]) -> dict[int, str]:
        task, seeds = self._task, np.asarray(seeds, dtype=np.int64)
        assert task.mixtures is not None
        # The last bit of a seed says whether it is for training.
        self._seats[copies] = seeds // 2 % task.game.players if task.seat is None else task.seat
        chosen = drawn(task.mixtures, seeds)
        chosen[np.arange(len(copies)), self._seats[copies]] = OUTSIDE
        self._episodes.begin(copies, seeds, chosen)
        return {}

    def observe(self, copies: Int[np.ndarray, " some"]) -> Frame:
        over = self._episodes.over(copies)
        shape = (len(copies), 1)
        observation = np.zeros((*shape, self._task.features), dtype=np.float32)
        legal = np.ones((*shape, self._task.actions), dtype=bool)
        for seat in range(self._task.game.players):
            rows = np.flatnonzero(~over & (self._seats[copies] == seat))
            if len(rows):
                seen = Seen(self._task.game, seat, [self._episodes.states[copies[row]] for row in rows.tolist()])
                observation[rows, 0], legal[rows, 0] = seen.observation, seen.legal
        return Frame(observation, observation[:, 0], legal, np.ones(shape, dtype=bool))

    def step(self, copies: Int[np.ndarray, " some"], action: Int64[np.ndarray, "some agents"]) -> Outcome:
        going = ~self._episodes.over(copies)
        self._episodes.act(copies[going], action[going, 0])
        over: Bool[np.ndarray, " some"] = self._episodes.over(copies)
        paid = self._episodes.utilities(copies)[np.arange(len(copies)), self._seats[copies]]
        reward = np.where(over, paid, 0.0).astype(np.float32)[:, None]
        return Outcome(reward, over[:, None], np.zeros_like(over)[:, None], self.observe(copies))

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """Seeds, who plays, and OpenSpiel's own account of each state, one behind the other."""
        told = ["" if state is None else state.serialize() for state in self._episodes.states]
        texts = [text.encode() for text in told]
        return {
            "seeds": self._episodes.seeds.copy(),
            "moves": self._episodes.moves.copy(),
            "chosen": self._episodes.chosen.copy(),
            "seats": self._seats.copy(),
            "began": np.array([state is not None for state in self._episodes.states]),
            "lengths": np.array([len(text) for text in texts], dtype=np.int64),
            "states": np.frombuffer(b"".join(texts), dtype=np.uint8).copy(),
        }

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        episodes = self._episodes
        episodes.seeds, episodes.moves = np.array(state["seeds"]), np.array(state["moves"])
        episodes.chosen, self._seats = np.array(state["chosen"]), np.array(state["seats"])
        ends = np.cumsum(state["lengths"]).tolist()
        told, game = np.asarray(state["states"], dtype=np.uint8).tobytes(), self._task.game.spiel
        for copy, (began, end, size) in enumerate(zip(state["began"], ends, state["lengths"].tolist(), strict=True)):
            text = told[end - size : end].decode()
            episodes.states[copy] = game.deserialize_state(text) if began else None

    def close(self) -> None:
        self._episodes.states = [None] * self._count


def from_spec(argument: str | None, options: Mapping[str, Any]) -> SeatTask:
    """The task ``spiel:GAME[,seat=alternating,opponents=FOLDER]``: against uniform players, or those of a run.

    FOLDER: as in :func:`~stratagem.games.opponents.read_opponents`. Raises :class:`InputError` for a game that cannot
    be played, another option, a seat that is none, and opponents of another game.
    """
    if argument is None:
        raise InputError("task spiel needs a game of OpenSpiel, such as spiel:leduc_poker")
    check_names("spiel", options, ["seat", "opponents"])
    seat = str(options.get("seat", "alternating"))
    if seat != "alternating" and not seat.isdecimal():
        raise InputError(f"task spiel:{argument}: seat={seat!r}: must be the number of a player, or alternating")
    game, place, source = PlayedGame(argument), None if seat == "alternating" else int(seat), options.get("opponents")
    if source is None:
        return SeatTask(game, place)
    return SeatTask(game, place, *read_opponents(source, game), source=source)
