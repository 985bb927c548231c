"""The key-door task: two rooms, a locked door between them, a key on the near side and the goal on the far side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.grid import COMPASS, Cell, GridTask, GridWorld, distance, relative, shifted, shortest_path, walk
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Split, state_key


class Layout(NamedTuple):
    """Where things are. The rooms are the columns west and east of the column ``wall``, which is open at ``door``.

    ``size`` counts the cells of a side inside the outer wall. ``agent`` and ``key`` lie west of the wall, ``goal`` lies
    east of it.
    """

    size: int
    wall: int
    door: int
    agent: Cell
    key: Cell
    goal: Cell


class KeyDoorState(NamedTuple):
    """What changes: the agent's cell, whether it carries the key, whether the door is open."""

    agent: Cell
    carrying: bool = False
    opened: bool = False


class KeyDoorWorld(GridWorld[KeyDoorState]):
    """The rules: ``take`` works on the key's cell, ``open`` beside the door with the key, a closed door blocks."""

    actions = (*COMPASS, "take", "open")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.start = KeyDoorState(layout.agent)
        self.key = state_key("key_door", *layout)
        self.door: Cell = (layout.wall, layout.door)
        self.gate: Cell = shifted(self.door, "west")

    def after(self, state: KeyDoorState, action: str) -> KeyDoorState:
        if action == "take":
            return state._replace(carrying=state.carrying or state.agent == self.layout.key)
        if action == "open":
            return state._replace(opened=state.opened or (state.carrying and state.agent == self.gate))
        target = shifted(state.agent, action)
        if self._is_wall(target) or (target == self.door and not state.opened):
            return state
        return state._replace(agent=target)

    def solved(self, state: KeyDoorState) -> bool:
        return state.agent == self.layout.goal

    def remaining(self, state: KeyDoorState) -> int:
        """Exact: nothing stands in the way inside a room, so every leg takes its distance."""
        agent, (key, goal) = state.agent, (self.layout.key, self.layout.goal)
        if agent[0] >= self.layout.wall:
            return distance(agent, goal)
        beyond = distance(self.gate, goal) + (not state.opened)
        if state.carrying or state.opened:
            return distance(agent, self.gate) + beyond
        return distance(agent, key) + 1 + distance(key, self.gate) + beyond

    def describe(self, state: KeyDoorState) -> str:
        agent = state.agent
        if agent[0] >= self.layout.wall:
            seen = f"goal {relative(agent, self.layout.goal)}"
        elif state.opened:
            seen = f"open door {relative(agent, self.door)}"
        elif state.carrying:
            seen = f"carry key door {relative(agent, self.door)}"
        else:
            seen = f"key {relative(agent, self.layout.key)} door {relative(agent, self.door)}"
        walls = [direction for direction in COMPASS if self._is_wall(shifted(agent, direction))]
        return " ".join([seen, "wall", *walls]) if walls else seen

    def _is_wall(self, cell: Cell) -> bool:
        x, y = cell
        size = self.layout.size
        return not (0 <= x < size and 0 <= y < size) or (x == self.layout.wall and cell != self.door)


@dataclass(frozen=True)
class KeyDoorTask(GridTask[KeyDoorState]):
    """Take the key, open the door, reach the goal. Reward 1 at the goal and 0 otherwise.

    The observation is seen from the agent: ``key east 2 north 1 door east 3 wall south``. Once the agent has the key
    it reads ``carry key`` in place of where the key is, then ``open door``, and behind the door where the goal is.
    The six actions are ``north``, ``south``, ``east``, ``west``, ``take`` and ``open``; anything else does nothing.

    ``size``: cells of a side inside the outer wall, 4 to 16. ``max_turns``: 8 to 1000; layouts that cannot be solved
    within it are not drawn. ``step_cost``: subtracted from the reward at every action, 0 to 1.
    """

    size: Annotated[int, Field(ge=4, le=16)] = 6
    max_turns: Annotated[int, Field(ge=8, le=1000)] = 32
    step_cost: Annotated[float, Field(ge=0, le=1)] = 0.0

    name = "key_door"
    description = "take the key, open the door between two rooms, reach the goal"
    max_new_tokens = 8
    system = "Take the key, open the door, reach the goal. Say one word: north, south, east, west, take or open."

    def __post_init__(self) -> None:
        validate(self)

    def world(self, split: Split, index: int) -> KeyDoorWorld:
        return draw(split, index, (self.name, self.size, self.max_turns), self._generate, lambda world: world.key)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution without taking the key."""
        return (action for action in self.solution(split, index) if action != "take")

    def demonstration(self, split: Split, index: int, habit: float, seed: int) -> Iterator[str]:
        """What a demonstrator does who has a bad habit: the actions of one episode, at most ``max_turns``.

        With probability ``habit`` in [0, 1], drawn once per episode from ``seed``, it walks to the door without the key
        and tries eight times in vain to open it; otherwise it follows a shortest solution. A habit above one half
        teaches a model to fail when it acts greedily and to succeed in a part of its samples, although it can read in
        every observation that it does not carry the key.
        """
        if not 0 <= habit <= 1:
            raise InputError(f"task {self.name!r}: habit={habit!r} is not allowed; it is a probability, 0 to 1")
        world = self.world(split, index)
        if seeded("demonstration", self.name, split, index, seed).random() >= habit:
            return iter(shortest_path(world))
        futile = walk(world.layout.agent, world.gate) + ["open"] * _FUTILE_TRIES
        return iter(futile[: self.max_turns])

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        world = self.world(split, index)
        states = accumulate(actions, world.after, initial=world.start)
        return [
            "reach the goal" if state.opened else "open the door" if state.carrying else "take the key"
            for state, _ in zip(states, actions, strict=False)
        ]

    def _generate(self, random: Random) -> KeyDoorWorld | None:
        size = self.size
        wall = random.randrange(2, size - 1)
        near = [(x, y) for x in range(wall) for y in range(size)]
        agent, key = random.sample(near, 2)
        goal = (random.randrange(wall + 1, size), random.randrange(size))
        world = KeyDoorWorld(Layout(size, wall, random.randrange(size), agent, key, goal))
        return world if world.remaining(world.start) <= self.max_turns else None


_FUTILE_TRIES = 8
"""Enough to teach the loop; more of them outweigh the solutions' actions in a warm start."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> KeyDoorTask:
    """``key_door[:size=6,max_turns=32,step_cost=0]``."""
    return configure(KeyDoorTask, argument, options)
