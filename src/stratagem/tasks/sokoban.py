"""The Sokoban task: push every box onto a goal, in rooms made solvable by playing them backwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.grid import COMPASS, Cell, GridTask, GridWorld, distance, relative, shifted
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Split, state_key

View = Literal["grid", "relative"]

_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
_UNREACHABLE = 1_000_000


class Room(NamedTuple):
    """Where things are at the start. Every cell that is not ``floor`` is wall; the tuples are sorted."""

    floor: tuple[Cell, ...]
    goals: tuple[Cell, ...]
    boxes: tuple[Cell, ...]
    agent: Cell


class SokobanState(NamedTuple):
    """What changes: the agent's cell and the cells of the boxes, sorted."""

    agent: Cell
    boxes: tuple[Cell, ...]


class SokobanWorld(GridWorld[SokobanState]):
    """The rules: a move into a box pushes it, unless a wall or another box is behind it."""

    actions = tuple(COMPASS)

    def __init__(self, room: Room, view: View = "grid") -> None:
        self.room = room
        self.view = view
        self.start = SokobanState(room.agent, room.boxes)
        self.key = state_key("sokoban", *room)
        self.floor = frozenset(room.floor)

    @classmethod
    def parse(cls, drawing: str, view: View = "grid") -> SokobanWorld:
        """A world from a drawing in the marks of :class:`SokobanTask`; an unusable one raises :class:`InputError`."""
        cells = {(x, y): mark for y, row in enumerate(drawing.split()) for x, mark in enumerate(row)}
        marked = {marks: tuple(sorted(cell for cell, mark in cells.items() if mark in marks)) for marks in _MARKS}
        floor, goals, boxes, agents = marked.values()
        if len(agents) != 1 or len(goals) != len(boxes):
            raise InputError(f"a Sokoban drawing needs one agent and a goal for every box: {drawing!r}")
        return cls(Room(floor, goals, boxes, agents[0]), view)

    def after(self, state: SokobanState, action: str) -> SokobanState:
        target = shifted(state.agent, action)
        if target not in self.floor:
            return state
        if target not in state.boxes:
            return SokobanState(target, state.boxes)
        beyond = shifted(target, action)
        if beyond not in self.floor or beyond in state.boxes:
            return state
        return SokobanState(target, _moved(state.boxes, target, beyond))

    def solved(self, state: SokobanState) -> bool:
        return state.boxes == self.room.goals

    def remaining(self, state: SokobanState) -> int:
        """The pushes every box needs if it were alone, and the walk to the nearest box that needs one."""
        pushes = sum(self._pushes.get(box, _UNREACHABLE) for box in state.boxes)
        waiting = [distance(state.agent, box) - 1 for box in state.boxes if box not in self.room.goals]
        return pushes + min(waiting, default=0)

    def describe(self, state: SokobanState) -> str:
        return self._draw(state) if self.view == "grid" else self._relate(state)

    @cached_property
    def _pushes(self) -> dict[Cell, int]:
        """Pushes from each cell to the nearest goal with no other box around; cells that reach none are absent."""
        pushes = dict.fromkeys(self.room.goals, 0)
        frontier = list(self.room.goals)
        for cell in frontier:
            for direction in COMPASS:
                source, stand = shifted(cell, direction), shifted(cell, direction, 2)
                if source not in pushes and source in self.floor and stand in self.floor:
                    pushes[source] = pushes[cell] + 1
                    frontier.append(source)
        return pushes

    def _draw(self, state: SokobanState) -> str:
        empty, place = self._empty
        drawing = list(empty)
        for box in state.boxes:
            drawing[place[box]] = "*" if box in self.room.goals else "$"
        drawing[place[state.agent]] = "+" if state.agent in self.room.goals else "@"
        return "".join(drawing)

    @cached_property
    def _empty(self) -> tuple[str, dict[Cell, int]]:
        """The room drawn without boxes and agent, and where in the drawing each cell of its floor is."""
        across, down = zip(*self.room.floor, strict=True)
        left, top = min(across) - 1, min(down) - 1
        columns, rows = range(left, max(across) + 2), range(top, max(down) + 2)
        marks = dict.fromkeys(self.room.floor, "-") | dict.fromkeys(self.room.goals, ".")
        drawing = "\n".join("".join(marks.get((x, y), "#") for x in columns) for y in rows)
        return drawing, {(x, y): (y - top) * (len(columns) + 1) + x - left for x, y in self.room.floor}

    def _relate(self, state: SokobanState) -> str:
        boxes = [f"box {relative(state.agent, box)}" for box in state.boxes]
        goals = [f"goal {relative(state.agent, goal)}" for goal in self.room.goals]
        walls = [direction for direction in COMPASS if shifted(state.agent, direction) not in self.floor]
        return " ".join([*boxes, *goals, *(["wall", *walls] if walls else [])])


_MARKS = ("-@+$*.", ".+*", "$*", "@+")
"""Which marks of a drawing are floor, goals, boxes and the agent."""


@dataclass(frozen=True)
class SokobanTask(GridTask[SokobanState]):
    """Push every box onto a goal. Reward 1 when all boxes stand on goals and 0 otherwise.

    The four actions are ``north``, ``south``, ``east`` and ``west``; anything else does nothing. A room is made by
    starting from the solved position and pulling boxes away at random, within ``max_turns`` moves, so that it can be
    solved within them; at the start no box stands on a goal.

    ``size``: cells of a side inside the outer wall, 4 to 8. ``boxes``: 1 to 3. ``view``: ``grid`` draws the room
    (``#`` wall, ``@`` agent, ``$`` box, ``.`` goal, ``*`` box on goal, ``+`` agent on goal, ``-`` floor); ``relative``
    tells in words where boxes and goals are as seen from the agent and which of the four cells next to it are wall.
    ``max_turns``: 4 to 1000. ``step_cost``: subtracted from the reward at every action, 0 to 1.
    """

    size: Annotated[int, Field(ge=4, le=8)] = 6
    boxes: Annotated[int, Field(ge=1, le=3)] = 1
    view: View = "grid"
    max_turns: Annotated[int, Field(ge=4, le=1000)] = 32
    step_cost: Annotated[float, Field(ge=0, le=1)] = 0.0

    name = "sokoban"
    description = "push every box onto a goal"
    max_new_tokens = 8
    system = "Push every box onto a goal. Say one word: north, south, east or west."

    def __post_init__(self) -> None:
        validate(self)

    def world(self, split: Split, index: int) -> SokobanWorld:
        stream = (self.name, self.size, self.boxes, self.max_turns)
        return draw(split, index, stream, self._generate, lambda world: world.key)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution with its last move, a push, the other way round."""
        *actions, last = self.solution(split, index)
        return iter([*actions, _OPPOSITE[last]])

    def _generate(self, random: Random) -> SokobanWorld | None:
        cells = [(x, y) for x in range(self.size) for y in range(self.size)]
        walls = set(random.sample(cells, len(cells) // _CELLS_PER_WALL))
        floor = tuple(cell for cell in cells if cell not in walls)
        *placed, agent = random.sample(floor, self.boxes + 1)
        goals = tuple(sorted(placed))
        moves = min(self.max_turns, _LONGEST_PLAY)
        start = _played_backwards(random, frozenset(floor), goals, agent, moves)
        if not set(start.boxes).isdisjoint(goals):
            return None
        return SokobanWorld(Room(floor, goals, start.boxes, start.agent), self.view)


_CELLS_PER_WALL = 12
_LONGEST_PULL = 4
_LONGEST_PLAY = 60
"""Moves of backward play: more of them make rooms whose shortest solution takes minutes to find."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> SokobanTask:
    """``sokoban[:size=6,boxes=1,view=grid,max_turns=32,step_cost=0]``."""
    return configure(SokobanTask, argument, options)


def _played_backwards(
    random: Random, floor: frozenset[Cell], goals: tuple[Cell, ...], agent: Cell, moves: int
) -> SokobanState:
    """Undo at most ``moves`` moves of some solution: walk up to a box and pull it away, boxes on goals first."""
    state = SokobanState(agent, goals)
    while True:
        free = floor.difference(state.boxes)
        walks = _walks(free, state.agent)
        grips = [(box, to) for box in state.boxes for to in COMPASS if shifted(box, to) in walks]
        grips = [(box, to) for box, to in grips if shifted(box, to, 2) in free]
        grips = [(box, to) for box, to in grips if box in goals] or grips
        if not grips:
            return state
        box, to = random.choice(grips)
        pulls = 1
        while pulls < random.randint(1, _LONGEST_PULL) and shifted(box, to, pulls + 2) in free:
            pulls += 1
        moves -= walks[shifted(box, to)] + pulls
        if moves < 0:
            return state
        state = SokobanState(shifted(box, to, pulls + 1), _moved(state.boxes, box, shifted(box, to, pulls)))


def _walks(free: frozenset[Cell], agent: Cell) -> dict[Cell, int]:
    """Moves from the agent to every cell it can walk to."""
    moves = {agent: 0}
    frontier = [agent]
    for cell in frontier:
        for direction in COMPASS:
            target = shifted(cell, direction)
            if target in free and target not in moves:
                moves[target] = moves[cell] + 1
                frontier.append(target)
    return moves


def _moved(boxes: tuple[Cell, ...], source: Cell, target: Cell) -> tuple[Cell, ...]:
    return tuple(sorted(target if box == source else box for box in boxes))
