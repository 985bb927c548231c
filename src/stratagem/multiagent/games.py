"""Small cooperative games: matrices with shadowed equilibria, two steps, a meeting, coordination in time, recall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import InputError, unknown
from stratagem.multiagent.game import MarkovGame, MultiAgentTask, State, chance
from stratagem.multiagent.sketch import Sketch
from stratagem.tasks.options import check_names
from stratagem.validation import field_adapters

_Game = TypeVar("_Game", bound=MultiAgentTask)

PAYOFFS = {
    "climbing": ((11.0, -30.0, 0.0), (-30.0, 7.0, 6.0), (0.0, 0.0, 5.0)),
    "penalty": ((10.0, 0.0, -100.0), (0.0, 2.0, 0.0), (-100.0, 0.0, 10.0)),
    "nonmonotonic": ((8.0, -12.0, -12.0), (-12.0, 0.0, 0.0), (-12.0, 0.0, 0.0)),
}
"""Of two agents with three actions each, by the first one's and the second one's: climbing and penalty games (Claus and
Boutilier 1998), and the one in which what is best for one agent turns with what the other does (arXiv 1905.05408)."""


@dataclass(frozen=True)
class MatrixGame(MarkovGame):
    """One turn, two agents, three actions each, and a payoff both get (:data:`PAYOFFS`).

    payoffs: which matrix.  scale: of all payoffs, above 0.
    """

    payoffs: Literal["climbing", "penalty", "nonmonotonic"] = "climbing"
    scale: Annotated[float, Gt(0)] = 1.0

    agents: ClassVar[int] = 2
    features: ClassVar[int] = 1
    actions: ClassVar[int] = 3

    @property
    def name(self) -> str:
        return named(f"matrix:{self.payoffs}", self, ("scale",))

    @property
    def description(self) -> str:
        return f"the {self.payoffs} game: one turn, two agents, one payoff"

    @property
    def table(self) -> Float[np.ndarray, "first second"]:
        """What both agents get."""
        return self.scale * np.array(PAYOFFS[self.payoffs])

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        return {}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        return {}, self.table[action[:, 0], action[:, 1]][:, None], np.full(len(action), True)

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        return np.ones((len(state["seed"]), 2, 1))

    def whole(self, state: State) -> Float[np.ndarray, "copies 1"]:
        return np.ones((len(state["seed"]), 1))

    state_features: ClassVar[int] = 1


@dataclass(frozen=True)
class TwoStepGame(MarkovGame):
    """The game on which QMIX is told from VDN (arXiv 1803.11485, section 5): the first agent chooses what is played.

    In the first turn its action leads to game A, which pays 7 whatever is done, or to game B, which pays
    ``((0, 1), (1, 8))``; the first turn pays nothing. Everybody sees which of the three it is.
    """

    agents: ClassVar[int] = 2
    features: ClassVar[int] = 3
    state_features: ClassVar[int] = 3
    actions: ClassVar[int] = 2
    table: ClassVar[np.ndarray] = np.array(
        [[[0.0, 0.0], [0.0, 0.0]], [[7.0, 7.0], [7.0, 7.0]], [[0.0, 1.0], [1.0, 8.0]]]
    )

    @property
    def name(self) -> str:
        return "two_step"

    @property
    def description(self) -> str:
        return "one agent chooses a safe game of two, or one that pays more to agents who coordinate"

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        return {"place": np.zeros(len(seeds), dtype=np.int64)}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        place = state["place"]
        return {"place": 1 + action[:, 0]}, self.table[place, action[:, 0], action[:, 1]][:, None], place > 0

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        return np.eye(3)[state["place"]][:, None].repeat(2, 1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        return np.eye(3)[state["place"]]


@dataclass(frozen=True)
class MeetingGame(MarkovGame):
    """Agents on a square grid are to be on one cell; each sees where it is, and others only when they are near.

    An action stays or goes a cell up, right, down or left; walls stop it. Every turn costs ``step_cost``, the meeting
    pays 1 and ends the episode; starts are cells drawn alike. An observation is the own cell and, for every other
    agent, whether it is seen and how far away it is, each over the size; the state is where everybody is.

    size: cells in a row, 2 to 32.  agents: 2 to 16.  sight: cells in a row or column up to which others are seen.
    max_turns: 1 to 10,000.  step_cost: in [0, 1].
    """

    size: Annotated[int, Ge(2), Le(32)] = 5
    agents: Annotated[int, Ge(2), Le(16)] = 2
    sight: Annotated[int, Ge(0)] = 2
    max_turns: Annotated[int, Ge(1), Le(10_000)] = 25
    step_cost: Annotated[float, Ge(0), Le(1)] = 0.02

    actions: ClassVar[int] = 5
    moves: ClassVar[np.ndarray] = np.array([(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)])

    @property
    def name(self) -> str:
        return named("meeting", self, ("size", "agents", "sight", "max_turns", "step_cost"))

    @property
    def description(self) -> str:
        return "agents on a grid, who see little of it, are to meet"

    @property
    def features(self) -> int:
        return 2 + 3 * (self.agents - 1)

    @property
    def others(self) -> tuple[int, int, int]:
        """Numbers an agent sees of itself, other agents, and numbers of each, the first one 1 where it is seen."""
        return 2, self.agents - 1, 3

    @property
    def state_features(self) -> int:
        return 2 * self.agents

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        return {"cell": (chance(seeds, (self.agents, 2)) * self.size).astype(np.int64)}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        cell = np.clip(state["cell"] + self.moves[action], 0, self.size - 1)
        met = (cell == cell[:, :1]).all((1, 2))
        return {"cell": cell}, np.where(met, 1.0, 0.0)[:, None] - self.step_cost, met

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        cell = state["cell"]
        away = cell[:, None] - cell[:, :, None]  # [copies, who looks, at whom, axis]
        seen = (np.abs(away).max(-1, keepdims=True) <= self.sight).astype(float)
        others = ~np.eye(self.agents, dtype=bool)
        told = np.concatenate([seen, seen * away / self.size], -1)[:, others].reshape(len(cell), self.agents, -1)
        return np.concatenate([cell / self.size, told], -1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        return state["cell"].reshape(len(state["cell"]), -1) / self.size

    def sketch(self, state: State) -> Sketch:
        return Sketch(self.size, self.size, state["cell"][0, :, ::-1] + 0.5)


@dataclass(frozen=True)
class CoordinationGame(MarkovGame):
    """Agents with a bit each, which they set and which flips by chance, are paid for agreeing (arXiv 2306.01920).

    With ``z`` bits that are 0 and ``o`` that are 1, a turn that begins so pays 3 if ``z`` is more than ``margin``
    ahead, 2 if ``o`` is; otherwise 1 if ``z < o``, else 0. After the turn the bit of every agent is its action, or,
    with probability ``flip``, the other. Everybody sees all bits; starts are drawn alike. All zeros is best, and all
    ones an equilibrium no agent leaves alone.

    agents: 2 to 16.  margin: at least 0; None: 1, and 2 from five agents on, as published.  flip: in [0, 1].
    max_turns: 1 to 10,000.
    """

    agents: Annotated[int, Ge(2), Le(16)] = 3
    margin: Annotated[int, Ge(0)] | None = None
    flip: Annotated[float, Ge(0), Le(1)] = 0.1
    max_turns: Annotated[int, Ge(1), Le(10_000)] = 20

    actions: ClassVar[int] = 2

    @property
    def name(self) -> str:
        return named("coordination", self, ("agents", "margin", "flip", "max_turns"))

    @property
    def description(self) -> str:
        return "bits to be set alike, of which one way pays more than the other"

    @property
    def features(self) -> int:
        return self.agents

    @property
    def state_features(self) -> int:
        return self.agents

    def pay(self, bits: Int64[np.ndarray, "... agents"]) -> Float[np.ndarray, "..."]:
        """What a turn that begins with these bits pays every agent."""
        margin = (2 if self.agents >= 5 else 1) if self.margin is None else self.margin
        ones = bits.sum(-1)
        ahead = self.agents - 2 * ones
        return np.where(np.abs(ahead) <= margin, np.where(ahead < 0, 1.0, 0.0), np.where(ahead > 0, 3.0, 2.0))

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        return {"bits": (chance(seeds, (self.agents,)) < 0.5).astype(np.int64)}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        flipped = chance(state["seed"], (self.agents,), state["turn"]) < self.flip
        return {"bits": action ^ flipped}, self.pay(state["bits"])[:, None], np.full(len(action), False)

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        return state["bits"][:, None].repeat(self.agents, 1).astype(float)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        return state["bits"].astype(float)


@dataclass(frozen=True)
class RecallGame(MarkovGame):
    """Agents see a cue in the first turn and are to answer it together in the last, when they no longer see it.

    The episode ends with turn ``delay``, counted from 0, and pays 1 if all agents then take the action of the cue's
    number, else nothing. What is done before changes nothing. An agent sees the cue, one-hot, in the first turn, zeros
    after it, and whether it is time to answer; the state is the cue and how much time has passed.

    Agents that remember can always earn 1. Whose action in the last turn depends on nothing but what it sees then, and
    on chance of its own, earns at most ``1 / cues``: all see the same whatever the cue was, cues are drawn alike, and
    the probabilities with which a team takes its joint answers do not add up to more than 1.

    agents: 1 to 16.  cues: 2 to 16.  delay: turns between cue and answer, 1 to 1,000.
    """

    agents: Annotated[int, Ge(1), Le(16)] = 2
    cues: Annotated[int, Ge(2), Le(16)] = 2
    delay: Annotated[int, Ge(1), Le(1000)] = 4

    @property
    def name(self) -> str:
        return named("recall", self, ("agents", "cues", "delay"))

    @property
    def description(self) -> str:
        return "a cue seen at first is to be answered together later, when nobody sees it"

    @property
    def features(self) -> int:
        return self.cues + 1

    @property
    def state_features(self) -> int:
        return self.cues + 1

    @property
    def actions(self) -> int:
        return self.cues

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        return {"cue": (chance(seeds) * self.cues).astype(np.int64)}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        answered = state["turn"] == self.delay
        right = answered & (action == state["cue"][:, None]).all(1)
        return {}, right[:, None].astype(float), answered

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        shown = np.eye(self.cues)[state["cue"]] * (state["turn"] == 0)[:, None]
        seen = np.concatenate([shown, (state["turn"] == self.delay)[:, None]], 1)
        return seen[:, None].repeat(self.agents, 1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        return np.concatenate([np.eye(self.cues)[state["cue"]], state["turn"][:, None] / self.delay], 1)


# ---- by specification -----------------------------------------------------------------------------------------------


def matrix(argument: str | None, options: Mapping[str, Any]) -> MatrixGame:
    """The task ``matrix[:PAYOFFS][,scale=1]``. Raises :class:`InputError` naming the payoffs there are."""
    if argument is not None and argument not in PAYOFFS:
        raise unknown("payoffs of task matrix:", argument, PAYOFFS)
    check_names("matrix", options, ["scale"])
    return MatrixGame(argument or "climbing", **options)  # type: ignore[arg-type]


def two_step(argument: str | None, options: Mapping[str, Any]) -> TwoStepGame:
    """The task ``two_step``."""
    return configured("two_step", TwoStepGame, argument, options)


def meeting(argument: str | None, options: Mapping[str, Any]) -> MeetingGame:
    """The task ``meeting[:size=5,agents=2,...]``."""
    return configured("meeting", MeetingGame, argument, options)


def coordination(argument: str | None, options: Mapping[str, Any]) -> CoordinationGame:
    """The task ``coordination[:agents=3,...]``."""
    return configured("coordination", CoordinationGame, argument, options)


def recall(argument: str | None, options: Mapping[str, Any]) -> RecallGame:
    """The task ``recall[:agents=2,...]``."""
    return configured("recall", RecallGame, argument, options)


def configured(name: str, kind: type[_Game], argument: str | None, options: Mapping[str, Any]) -> _Game:
    """A game that takes no argument from the options of its specification. Raises :class:`InputError`."""
    if argument is not None:
        raise InputError(f"task {name!r} takes no argument, got {argument!r}")
    check_names(name, options, list(field_adapters(kind)))
    return kind(**options)


def named(name: str, game: Any, options: tuple[str, ...]) -> str:
    """The specification: the name with the options that are not their defaults."""
    own = {option: getattr(game, option) for option in options}
    changed = [f"{option}={value}" for option, value in own.items() if value != getattr(type(game), option)]
    if not changed:
        return name
    return f"{name}{',' if ':' in name else ':'}{','.join(changed)}"
