"""What grid worlds share: compass moves, a deterministic world of hashable states, its environment and its solver."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from itertools import count
from typing import Generic, TypeVar

from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

Cell = tuple[int, int]
"""A place as (x, y): x grows to the east, y grows to the south."""

State = TypeVar("State", bound=Hashable)

COMPASS: dict[str, Cell] = {"north": (0, -1), "south": (0, 1), "east": (1, 0), "west": (-1, 0)}


class GridWorld(ABC, Generic[State]):
    """A deterministic world. States are hashable, their ``repr`` is stable, actions are single words.

    ``actions``: every word the world understands. ``start``: the first state. ``key``: the state key of the layout.
    """

    actions: tuple[str, ...]
    start: State
    key: int

    @abstractmethod
    def after(self, state: State, action: str) -> State:
        """The state that follows; an action that is impossible here leaves the state as it is."""

    @abstractmethod
    def solved(self, state: State) -> bool:
        """Whether the episode is won in this state."""

    @abstractmethod
    def remaining(self, state: State) -> int:
        """A lower bound of the number of actions from ``state`` to the nearest solved state."""

    @abstractmethod
    def describe(self, state: State) -> str:
        """What the policy reads."""


class GridEnvironment(Environment, Generic[State]):
    """One episode in a world: reward 1 when it is solved, ``-step_cost`` for every action.

    Text that is none of the world's words (surrounding space and letter case aside) takes a turn and does nothing, as
    does a word for what is impossible here; neither counts as executed.
    The episode is truncated after ``max_turns`` actions.
    """

    def __init__(self, world: GridWorld[State], max_turns: int, step_cost: float = 0.0) -> None:
        self.world = world
        self.max_turns = max_turns
        self.step_cost = step_cost
        self._state = world.start
        self._turn = 0

    def reset(self) -> Observation:
        self._state = self.world.start
        self._turn = 0
        return self._observe()

    def step(self, action: str) -> Step:
        word, before = action.strip().lower(), self._state
        if word in self.world.actions:
            self._state = self.world.after(before, word)
        self._turn += 1
        solved = self.world.solved(self._state)
        truncated = not solved and self._turn >= self.max_turns
        reward = float(solved) - self.step_cost
        return Step(
            self._observe(),
            reward,
            done=solved or truncated,
            truncated=truncated,
            success=solved,
            executed=self._state != before,
        )

    def _observe(self) -> Observation:
        return Observation(self.world.describe(self._state), state_key(self.world.key, self._state))


class GridTask(Task, Generic[State]):
    """A task whose episodes are grid worlds; its solutions are shortest."""

    step_cost: float = 0.0

    @abstractmethod
    def world(self, split: Split, index: int) -> GridWorld[State]:
        """The world of the episode with this number."""

    def environment(self, split: Split, index: int) -> GridEnvironment[State]:
        return GridEnvironment(self.world(split, index), self.max_turns, self.step_cost)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return iter(shortest_path(self.world(split, index)))


def shortest_path(world: GridWorld[State]) -> list[str]:
    """The fewest actions from the start to a solved state (A*; optimal because ``remaining`` is a lower bound).

    Raises ``ValueError`` when no solved state can be reached.
    """
    tie = count()
    frontier = [(world.remaining(world.start), next(tie), 0, world.start)]
    best: dict[State, int] = {world.start: 0}
    reached_by: dict[State, tuple[State, str]] = {}
    while frontier:
        _, _, cost, state = heapq.heappop(frontier)
        if world.solved(state):
            return _actions_to(state, reached_by)
        if cost > best[state]:
            continue
        for action in world.actions:
            following = world.after(state, action)
            if cost + 1 < best.get(following, cost + 2):
                best[following] = cost + 1
                reached_by[following] = (state, action)
                estimate = cost + 1 + world.remaining(following)
                heapq.heappush(frontier, (estimate, next(tie), cost + 1, following))
    raise ValueError("no solved state can be reached")


def shifted(cell: Cell, direction: str, steps: int = 1) -> Cell:
    """The cell ``steps`` away in a compass direction."""
    dx, dy = COMPASS[direction]
    return cell[0] + steps * dx, cell[1] + steps * dy


def distance(origin: Cell, target: Cell) -> int:
    """Moves between two cells when nothing is in the way."""
    return abs(target[0] - origin[0]) + abs(target[1] - origin[1])


def walk(origin: Cell, target: Cell) -> list[str]:
    """The moves from ``origin`` to ``target`` when nothing is in the way: along the row first."""
    dx, dy = target[0] - origin[0], target[1] - origin[1]
    return ["east"] * dx + ["west"] * -dx + ["south"] * dy + ["north"] * -dy


def relative(origin: Cell, target: Cell) -> str:
    """Where ``target`` is as seen from ``origin``, such as ``east 2 north 1``, or ``here``."""
    dx, dy = target[0] - origin[0], target[1] - origin[1]
    words = []
    if dx:
        words.append(f"east {dx}" if dx > 0 else f"west {-dx}")
    if dy:
        words.append(f"south {dy}" if dy > 0 else f"north {-dy}")
    return " ".join(words) or "here"


def _actions_to(state: State, reached_by: dict[State, tuple[State, str]]) -> list[str]:
    actions = []
    while state in reached_by:
        state, action = reached_by[state]
        actions.append(action)
    return actions[::-1]
