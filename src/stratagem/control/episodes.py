"""Episodes of Gymnasium environments played side by side: each seeded, able to fail alone and to be replayed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from jaxtyping import Float32

from stratagem.control.task import GymTask
from stratagem.errors import BrokenRunError

MOST_FAILED_STARTS = 20
"""So many episodes in a row may fail to start before the run is called broken."""


class Start(NamedTuple):
    """An episode to be played: its number in the run, its group, the seed its environment is reset with.

    number: of its start state, from which the seed follows.
    """

    episode: int
    group: int
    seed: int
    number: int = 0


@dataclass(frozen=True)
class Ending:
    """How an episode was left: in a terminal state, at a turn limit, cut while it ran on, or failed.

    turns, total: of the whole episode, which may have begun in an earlier batch.  observation: the last one.
    failure: why it failed.
    """

    start: Start
    how: Literal["terminal", "limit", "cut", "failed"]
    observation: np.ndarray
    turns: int
    total: float
    failure: str | None = None


class Lane:
    """One environment and the episode it is in.

    An episode is fully told by its seed and the commands given since; :meth:`replay` restores it from them. An
    environment that raises or rewards with a number that is not finite ends its episode as failed and is replaced.
    An environment that never returns from a step cannot be interrupted in its own process.
    """

    def __init__(self, task: GymTask, number: int) -> None:
        self._task, self.number = task, number
        self._environment: gymnasium.Env[Any, Any] | None = None
        self.start: Start | None = None
        self.ending: Ending | None = None
        self.observation: np.ndarray = np.zeros(task.features, dtype=np.float32)
        self.commands: list[Any] = []
        self.total = 0.0

    def begin(self, start: Start) -> None:
        """Reset into the episode; :attr:`ending` is set at once when that fails."""
        self.start, self.ending = start, None
        self.commands, self.total = [], 0.0
        try:
            if self._environment is None:
                self._environment = self._task.make()
            self.observation, _ = self._environment.reset(seed=start.seed)
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")
            return
        if not np.isfinite(self.observation).all():
            self.fail("the observation is not finite")

    def step(self, command: Any) -> float:
        """Give the environment a command; returns its reward. :attr:`ending` is set when the episode is over."""
        assert self._environment is not None
        try:
            self.observation, reward, terminated, truncated, _ = self._environment.step(command)
            reward = float(reward)
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")
            return 0.0
        if not math.isfinite(reward):
            self.fail(f"the reward is {reward}")
            return 0.0
        self.commands.append(command)
        self.total += reward
        if terminated or truncated:
            self.ending = self.left("terminal" if terminated else "limit")
        return reward

    def left(self, how: Literal["terminal", "limit", "cut", "failed"], failure: str | None = None) -> Ending:
        """The ending of the episode if it were left now."""
        assert self.start is not None
        return Ending(self.start, how, np.array(self.observation), len(self.commands), self.total, failure)

    def fail(self, failure: str) -> None:
        """End the episode as failed and give its environment up."""
        self.ending = self.left("failed", failure)
        self._discard()

    def replay(self, start: Start, commands: Sequence[Any]) -> None:
        """Be where an episode is after these commands."""
        self.begin(start)
        for command in commands:
            if self.ending is None:
                self.step(command)

    def close(self) -> None:
        """Give up the episode, if any, and its environment."""
        self._discard()
        self.start = self.ending = None

    def _discard(self) -> None:
        if self._environment is not None:
            with contextlib.suppress(Exception):
                self._environment.close()
        self._environment = None


@dataclass
class Recording:
    """What happened, turn by turn: per turn one array with a row for each lane, and how every episode was left."""

    episode: list[np.ndarray] = field(default_factory=list)
    observation: list[np.ndarray] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[Sequence[float]] = field(default_factory=list)
    endings: dict[int, Ending] = field(default_factory=dict)

    def ended(self, *how: str) -> list[Ending]:
        """The episodes left in one of these ways, in the order in which they were left."""
        return [ending for ending in self.endings.values() if ending.how in how]

    @property
    def actions(self) -> int:
        """How many were taken."""
        return sum(len(row) for row in self.episode)


Act = Callable[[np.ndarray], np.ndarray]
Starts = Callable[[int], Start | None]


def play(task: GymTask, lanes: Sequence[Lane], starts: Starts, act: Act, turns: int | None = None) -> Recording:
    """Play episodes in lanes that take the next one when theirs is over.

    starts: the next episode for the lane of a number, None when there is none.  act: observations [lanes, features] to
    actions.  turns: of every lane; episodes that run on then are recorded as cut. None: until all episodes are over.
    A lane that is in an episode already goes on with it. Raises :class:`BrokenRunError` when no episode can be started.
    """
    recording = Recording()
    active = [lane for lane in lanes if lane.start is not None or _begin(lane, starts, recording)]
    observation, episode = _stacked(active), _numbers(active)
    while active and (turns is None or len(recording.reward) < turns):
        action = act(observation)
        recording.episode.append(episode)
        recording.observation.append(observation)
        recording.action.append(action)
        commands = zip(active, task.commands(action), strict=True)
        recording.reward.append([lane.step(command) for lane, command in commands])
        observation = _stacked(active)
        if not np.isfinite(observation).all():
            for lane, row in zip(active, observation, strict=True):
                if lane.ending is None and not np.isfinite(row).all():
                    lane.fail("the observation is not finite")
        if any(lane.ending is not None for lane in active):
            active = [lane for lane in active if lane.ending is None or _follow(lane, starts, recording)]
            observation, episode = _stacked(active), _numbers(active)
    for lane in active:
        ending = lane.left("cut")
        recording.endings[ending.start.episode] = ending
    return recording


def _follow(lane: Lane, starts: Starts, recording: Recording) -> bool:
    """Record how the lane's episode ended and begin the next; False when there is none."""
    assert lane.ending is not None
    recording.endings[lane.ending.start.episode] = lane.ending
    return _begin(lane, starts, recording)


def _begin(lane: Lane, starts: Starts, recording: Recording) -> bool:
    """Begin the next episode that can be started; False when there is none."""
    failed = 0
    while (start := starts(lane.number)) is not None:
        lane.begin(start)
        if lane.ending is None:
            return True
        recording.endings[start.episode] = lane.ending
        failed += 1
        if failed == MOST_FAILED_STARTS:
            raise BrokenRunError(f"{failed} episodes in a row could not be started; the last: {lane.ending.failure}")
    lane.start = None
    return False


def _stacked(lanes: Sequence[Lane]) -> Float32[np.ndarray, "lanes features"]:
    if not lanes:
        return np.zeros((0, 0), dtype=np.float32)
    rows = np.concatenate([lane.observation for lane in lanes], axis=None)
    return rows.reshape(len(lanes), -1).astype(np.float32, copy=False)


def _numbers(lanes: Sequence[Lane]) -> np.ndarray:
    return np.array([lane.start.episode for lane in lanes if lane.start is not None], dtype=np.int64)
