"""The T-maze: a cue at the start of a corridor, and a junction at its end where the remembered cue decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey", "golden", "silver", "pink", "orange")
ANIMALS = (
    *("heron", "fox", "otter", "owl", "bear", "hare", "wolf", "crane", "lynx", "mole", "seal", "toad", "crab", "goat"),
    *("moth", "swan", "deer", "frog", "crow", "pike", "bull", "newt", "duck", "lion", "wasp", "carp", "mule", "boar"),
)
SIDES = ("left", "right")
WORDS = ("forward", "back", *SIDES)


class Maze(NamedTuple):
    """What the sign shows, what is painted on the left and the right arm (one of them is the cue), and cells."""

    cue: str
    arms: tuple[str, str]
    length: int

    @property
    def side(self) -> str:
        """The arm that is right."""
        return SIDES[self.arms.index(self.cue)]


@dataclass(frozen=True)
class TMazeTask(Task):
    """Remember the sign, walk to the junction, and take the arm that the sign meant:

        > The sign shows a red fox. You are in a corridor.
        forward                      You are in a corridor.
        ...
        forward                      You are at the junction. left: blue owl, right: red fox.
        right                        the end

    ``length`` times ``forward`` leads to the junction. The sign is read once, in the first observation; on the way back
    (``back``) the start is a cell like others. An arm ends the episode. The reward, and success, is the right one.
    Words that mean nothing, walking into a wall and turning anywhere but at the junction change nothing, take their
    turn, and are counted in ``invalid``, which pays nothing.

    With ``aliased`` all cells of the corridor are told in the same words, and ``state_key`` is the key of the text: the
    turns of a corridor are one state for methods that merge turns by it. Without it the text says which cell it is
    (``cell 3 of 6``) and the key is of the true state: the maze and the cell.

    The sign shows a colour and an animal. No sign of a test episode is the sign of a train episode.

    ``length``: 1 to 64.  ``max_turns``: 2 to 1000, and more than ``length``.  ``step_cost``: subtracted from the reward
    at every action, 0 to 1.

    Raises :class:`InputError` for an option out of range, and for turns that are too few to reach an arm.
    """

    length: Annotated[int, Field(ge=1, le=64)] = 6
    aliased: bool = True
    max_turns: Annotated[int, Field(ge=2, le=1000)] = 12
    step_cost: Annotated[float, Field(ge=0, le=1)] = 0.0

    name = "t_maze"
    description = "remember the sign at the start, walk down a corridor, take the arm that the sign meant"
    max_new_tokens = 8
    system = "Walk to the junction and take the arm that the sign shows. Say one word: forward, back, left or right."
    reward_names = ("reward", "invalid")
    reward_weights = (1.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        if self.max_turns <= self.length:
            raise InputError(
                f"task {self.name!r}: max_turns={self.max_turns} is not allowed with length={self.length}; "
                f"an arm takes {self.length + 1} turns"
            )

    def environment(self, split: Split, index: int) -> TMazeEnvironment:
        return TMazeEnvironment(self.maze(split, index), self.aliased, self.max_turns, self.step_cost)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        maze = self.maze(split, index)
        yield from ["forward"] * maze.length
        yield maze.side

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: the other arm, and the right one a cell too early."""
        maze = self.maze(split, index)
        yield from ["forward"] * (maze.length - index % 2)
        yield maze.side if index % 2 else SIDES[1 - SIDES.index(maze.side)]

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        """Reach the junction; there, what the sign showed."""
        maze, cell, goals = self.maze(split, index), 0, []
        for action in actions:
            goals.append(f"go to the {maze.cue}" if cell == maze.length else "reach the junction")
            cell = _moved(cell, action, maze.length)
        return goals

    def maze(self, split: Split, index: int) -> Maze:
        """The maze of this episode."""
        return draw(split, index, (self.name, self.length), self._generate, lambda maze: state_key(self.name, maze.cue))

    def _generate(self, random: Random) -> Maze:
        cue = f"{random.choice(COLOURS)} {random.choice(ANIMALS)}"
        other = cue
        while other == cue:
            other = f"{random.choice(COLOURS)} {random.choice(ANIMALS)}"
        return Maze(cue, (cue, other) if random.random() < 0.5 else (other, cue), self.length)


class TMazeEnvironment(Environment):
    """One maze. A state is the maze and the cell; what is keyed is the text instead where cells are ``aliased``."""

    def __init__(self, maze: Maze, aliased: bool = True, max_turns: int = 12, step_cost: float = 0.0) -> None:
        self.maze = maze
        self.aliased = aliased
        self.max_turns = max_turns
        self.step_cost = step_cost
        self._cell, self._turn = 0, 0

    def reset(self) -> Observation:
        self._cell, self._turn = 0, 0
        return self._observe(f"The sign shows a {self.maze.cue}. {self._around()}")

    def step(self, action: str) -> Step:
        self._turn += 1
        word = action.strip().lower()
        arrived = self._cell == self.maze.length and word in SIDES
        if arrived:
            right = word == self.maze.side
            return Step(self._observe("the end", word), float(right) - self.step_cost, done=True, success=right)
        before, self._cell = self._cell, _moved(self._cell, word, self.maze.length)
        cut = self._turn >= self.max_turns
        moved = self._cell != before
        return Step(
            self._observe(self._around()),
            0.0 - self.step_cost,
            done=cut,
            truncated=cut,
            components={} if moved else {"invalid": 1.0},
            executed=moved,
            well_formed=word in WORDS,
        )

    def _around(self) -> str:
        if self._cell == self.maze.length:
            left, right = self.maze.arms
            return f"You are at the junction. left: {left}, right: {right}."
        where = "" if self.aliased else f", cell {self._cell} of {self.maze.length}"
        return f"You are in a corridor{where}."

    def _observe(self, text: str, arm: str = "") -> Observation:
        return Observation(text, state_key("t_maze", text) if self.aliased else state_key(self.maze, self._cell, arm))


def from_spec(argument: str | None, options: Mapping[str, str]) -> TMazeTask:
    """``t_maze[:length=6,aliased=true,max_turns=12,step_cost=0]``."""
    return configure(TMazeTask, argument, options)


def _moved(cell: int, action: str, length: int) -> int:
    """The cell that an action leads to; the same one where it cannot be done."""
    step = {"forward": 1, "back": -1}.get(action.strip().lower(), 0)
    return min(max(cell + step, 0), length)
