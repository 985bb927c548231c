"""Markov games in arrays: many copies side by side, in each of which several agents act at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, Shaped

from stratagem.errors import InputError
from stratagem.multiagent.sketch import Sketch
from stratagem.seeding import uniform
from stratagem.tasks.adapter import episode_seed
from stratagem.tasks.options import validate
from stratagem.tasks.task import Split

State = dict[str, np.ndarray]
"""What some copies of a game are in: arrays by name, each with a row for every copy."""


class Frame(NamedTuple):
    """What there is to see before the agents act.

    observation: what each agent sees.  state: what a critic may see while agents learn; agents never act on it.
    legal: which discrete actions an agent may take; of continuous ones it has no columns.  alive: who still acts. An
    agent that is not alive sees zeros, and what it is made to do changes nothing.
    """

    observation: Float32[np.ndarray, "copies agents features"]
    state: Float32[np.ndarray, "copies state_features"]
    legal: Bool[np.ndarray, "copies agents actions"]
    alive: Bool[np.ndarray, "copies agents"]

    def at(self, copies: np.ndarray) -> Frame:
        """The rows of these copies."""
        return Frame(*(rows[copies] for rows in self))


class Outcome(NamedTuple):
    """What came of a step.

    reward: of every agent; of a team that is paid together, the same for all.  terminated, truncated: agents whose
    episode is over since then, in a terminal state or by a limit. An episode is over when no agent is left alive.
    frame: what there is to see now, also of the agents that have just ended.  failures: why copies broke, by their row.
    duration: how many steps of time it took, where that is not always one.
    """

    reward: Float32[np.ndarray, "copies agents"]
    terminated: Bool[np.ndarray, "copies agents"]
    truncated: Bool[np.ndarray, "copies agents"]
    frame: Frame
    failures: Mapping[int, str] = {}
    duration: Int64[np.ndarray, " copies"] | None = None


class Copies(Protocol):
    """Copies of one game, numbered from 0, each in an episode of its own; a call is for those it names."""

    def reset(self, copies: Int[np.ndarray, " some"], seeds: Int64[np.ndarray, " some"]) -> dict[int, str]:
        """Begin an episode in each of these; why some could not be begun, by row."""
        ...

    def observe(self, copies: Int[np.ndarray, " some"]) -> Frame:
        """What there is to see in them."""
        ...

    def step(self, copies: Int[np.ndarray, " some"], action: Shaped[np.ndarray, "some agents ..."]) -> Outcome:
        """Let all agents of each of them act; discrete actions are numbers [some, agents]."""
        ...

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that episodes in them depend on, to go on from exactly there."""
        ...

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state_dict` returned, of as many copies."""
        ...

    def close(self) -> None:
        """Release what they hold."""
        ...


class MultiAgentTask(Protocol):
    """A game for agents that learn; ``family`` is ``multiagent``.

    agents: numbered from 0, always as many.  features: numbers in an observation, the same for all; who sees less is
    padded with zeros.  state_features: numbers in the state.  actions: choices of a discrete action, again of whoever
    has most, or dimensions of a continuous one.  shared_reward: whether all agents are always paid the same.
    mortal: whether an agent's episode may be over before the others'.
    """

    family: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def agents(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def state_features(self) -> int: ...
    @property
    def actions(self) -> int: ...
    @property
    def continuous(self) -> bool: ...
    @property
    def shared_reward(self) -> bool: ...
    @property
    def mortal(self) -> bool: ...

    def copies(self, count: int) -> Copies:
        """So many copies, in no episode yet."""
        ...

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode; none is of both splits."""
        ...


@dataclass(frozen=True)
class MarkovGame(ABC):
    """A game written down as functions of arrays, in which each agent sees what ``observe`` says.

    Deriving from it is all a new task takes: say how episodes begin (:meth:`begin`), go on (:meth:`transition`) and
    look (:meth:`observe`), each for many copies at once; ``state["seed"]`` and ``state["turn"]`` are always there, and
    :func:`chance` makes random numbers of them. The state that a critic sees is all observations together unless
    :meth:`whole` says otherwise.

    Raises :class:`InputError` for an option out of its range.
    """

    family: ClassVar[str] = "multiagent"
    continuous: ClassVar[bool] = False
    shared_reward: ClassVar[bool] = True
    mortal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        validate(self)

    @property
    @abstractmethod
    def name(self) -> str:
        """How the command line calls it."""

    @property
    @abstractmethod
    def description(self) -> str:
        """One line."""

    @property
    @abstractmethod
    def agents(self) -> int:
        """How many act."""

    @property
    @abstractmethod
    def features(self) -> int:
        """Numbers in an observation."""

    @property
    @abstractmethod
    def actions(self) -> int:
        """Choices of every agent."""

    @property
    def max_turns(self) -> int | None:
        """Turns after which an episode is truncated; None: never."""
        return None

    @property
    def state_features(self) -> int:
        """Numbers in the state."""
        return self.agents * self.features

    @abstractmethod
    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        """States in which episodes with these seeds begin."""

    @abstractmethod
    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies #agents"], Bool[np.ndarray, "copies ..."]]:
        """What changes of the states, what every agent is paid, and which episodes are over, or whose."""

    @abstractmethod
    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        """What every agent sees."""

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        """What a critic may see."""
        seen = self.observe(state)
        return seen.reshape(len(seen), -1)

    def legal(self, state: State) -> Bool[np.ndarray, "copies agents actions"]:
        """Which actions may be taken."""
        return np.ones((len(state["seed"]), self.agents, self.actions), dtype=bool)

    def sketch(self, state: State) -> Sketch:
        """What the first of these copies looks like. Raises :class:`InputError` for a game that has no picture."""
        raise InputError(f"task {self.name} cannot be drawn: its agents are at no place")

    def alive(self, state: State) -> Bool[np.ndarray, "copies agents"]:
        """Who still acts."""
        return np.ones((len(state["seed"]), self.agents), dtype=bool)

    def at_limit(self, state: State) -> Bool[np.ndarray, " copies"]:
        """Which episodes are cut here, unless they end."""
        return np.full(len(state["seed"]), False) if self.max_turns is None else state["turn"] >= self.max_turns

    def duration(self, state: State) -> Int64[np.ndarray, " copies"] | None:
        """How many steps of time the last turn took; None: one, always."""
        return None

    def copies(self, count: int) -> Copies:
        """So many copies, in no episode yet."""
        return ArrayCopies(self, count)

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode: even for training, odd for held-out ones."""
        return episode_seed(split, number)


class ArrayCopies:
    """Copies of a game that is written in arrays: a step is one call of the game, whatever their number."""

    def __init__(self, game: MarkovGame, count: int) -> None:
        self._game, self._count = game, count
        self._state: State = {}

    def reset(self, copies: Int[np.ndarray, " some"], seeds: Int64[np.ndarray, " some"]) -> dict[int, str]:
        seeds = np.asarray(seeds, dtype=np.int64)
        fresh = {"seed": seeds, "turn": np.zeros(len(seeds), dtype=np.int64), **self._game.begin(seeds)}
        if not self._state:
            self._state = {
                name: np.zeros((self._count, *rows.shape[1:]), dtype=rows.dtype) for name, rows in fresh.items()
            }
        self._write(copies, fresh)
        return {}

    def observe(self, copies: Int[np.ndarray, " some"]) -> Frame:
        return self._frame(self._read(copies))

    def step(self, copies: Int[np.ndarray, " some"], action: Int64[np.ndarray, "some agents"]) -> Outcome:
        game, state = self._game, self._read(copies)
        changed, reward, ended = game.transition(state, action)
        state = {**state, **changed, "turn": state["turn"] + 1}
        self._write(copies, state)
        shape = (len(copies), game.agents)
        ended = np.broadcast_to(ended if ended.ndim == 2 else ended[:, None], shape)
        return Outcome(
            np.broadcast_to(reward, shape).astype(np.float32),
            ended,
            game.at_limit(state)[:, None] & ~ended,
            self._frame(state),
            duration=game.duration(state),
        )

    def sketch(self, copy: int) -> Sketch:
        return self._game.sketch(self._read(np.array([copy])))

    def state_dict(self) -> dict[str, np.ndarray]:
        return {name: rows.copy() for name, rows in self._state.items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self._state = {name: np.array(rows) for name, rows in state.items()}

    def close(self) -> None:
        self._state = {}

    def _frame(self, state: State) -> Frame:
        game = self._game
        seen, whole = game.observe(state).astype(np.float32), game.whole(state).astype(np.float32)
        return Frame(seen, whole, game.legal(state), game.alive(state))

    def _read(self, copies: np.ndarray) -> State:
        return {name: rows[copies] for name, rows in self._state.items()}

    def _write(self, copies: np.ndarray, state: State) -> None:
        for name, rows in self._state.items():
            rows[copies] = state[name]


def chance(
    seeds: Int64[np.ndarray, " copies"], shape: Sequence[int] = (), turn: Int64[np.ndarray, " copies"] | None = None
) -> Float[np.ndarray, "copies ..."]:
    """Numbers in [0, 1) for every copy, which follow from its seed and turn alone, whatever other copies there are.

    shape: how many for a copy, at most 4096.  turn: ``state["turn"]``; None: before the first one, as an episode
    begins. One call a turn: another one of the same turn draws the same numbers.
    """
    place = np.zeros_like(seeds) if turn is None else turn + 1
    counters = torch.from_numpy(place[:, None] * 4096 + np.arange(math.prod(shape)))
    drawn: np.ndarray = uniform(torch.from_numpy(np.ascontiguousarray(seeds))[:, None], counters).numpy()
    return drawn.reshape(len(seeds), *shape)


def check_actions(task: MultiAgentTask, policy: Any) -> None:
    """Raise :class:`InputError` when a policy is of other sizes than a task."""
    names: tuple[str, ...] = ("features", "actions", "continuous")
    if not policy.any_number:
        names = ("agents", "features", "state_features", "actions", "continuous")
    wanted = {name: getattr(task, name) for name in names}
    held = {name: getattr(policy, name) for name in wanted}
    if wanted != held:
        raise InputError(f"task {task.name} needs agents of {_listed(wanted)}; these are of {_listed(held)}")


def _listed(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sizes.items())
