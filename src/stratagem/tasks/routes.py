"""The routes task: a way across a grid, written as a whole, that cannot be good in all it is judged by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

from pydantic import Field

from stratagem.tasks.grid import COMPASS, Cell, distance, relative, shifted, walk
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


@dataclass(frozen=True)
class Layout:
    """A grid without walls: where a route starts, its goal, two gems off the way, and how many moves it may have."""

    size: int
    start: Cell
    goal: Cell
    amber: Cell
    jade: Cell

    @property
    def direct(self) -> int:
        """Fewest moves to the goal."""
        return distance(self.start, self.goal)

    def by_way_of(self, *stops: Cell) -> int:
        """Fewest moves to the goal through these cells, in this order."""
        places = (self.start, *stops, self.goal)
        return sum(map(distance, places, places[1:]))

    @property
    def most(self) -> int:
        """Moves a route may have: enough for either gem on the way to the goal."""
        return max(self.by_way_of(self.amber), self.by_way_of(self.jade))

    def torn(self) -> bool:
        """Whether no route gets everything: neither gem on a shortest way, nor both on one that is short enough."""
        both = min(self.by_way_of(self.amber, self.jade), self.by_way_of(self.jade, self.amber))
        each = min(self.by_way_of(self.amber), self.by_way_of(self.jade))
        return self.direct > 0 and each > self.direct and both > self.most


@dataclass(frozen=True)
class RoutesTask(Task):
    """Write a route across a grid in compass words. Four rewards of 1 each: goal, brevity, and two gems.

    ``goal``: the route comes to the goal, where it ends. ``brief``: it does so in the fewest moves there are.
    ``amber`` and ``jade``: it comes by this gem, whether or not it ends at the goal. Grids are drawn so that no route
    gets everything: neither gem lies on a shortest way, and moves do not suffice for both gems and the goal. Words that
    are no directions are left out, a move against the edge stays where it is and counts, and moves beyond the number
    allowed are not made. Solved is a route that comes to the goal.

    ``size``: of the grid, 3 to 20.
    """

    size: Annotated[int, Field(ge=3, le=20)] = 6

    name = "routes"
    description = "a route across a grid, with four rewards that no route gets all of"
    max_new_tokens = 64
    system = "Write a route in the words north, south, east and west, such as: east east north"
    reward_names = ("goal", "brief", "amber", "jade")

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> RoutesEnvironment:
        return RoutesEnvironment(self._layout(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The shortest route, along the row first."""
        layout = self._layout(split, index)
        yield " ".join(walk(layout.start, layout.goal))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The shortest route without its last move."""
        layout = self._layout(split, index)
        yield " ".join(walk(layout.start, layout.goal)[:-1])

    def answer(self, text: str) -> str | None:
        """The moves that can be read."""
        return " ".join(_moves(text)) or None

    def _layout(self, split: Split, index: int) -> Layout:
        return draw(split, index, (self.name, self.size), self._generate, state_key)

    def _generate(self, random: Random) -> Layout | None:
        cells = [(x, y) for x in range(self.size) for y in range(self.size)]
        layout = Layout(self.size, *random.sample(cells, 4))
        return layout if layout.torn() else None


class RoutesEnvironment(Environment):
    """One grid, answered with one route."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def reset(self) -> Observation:
        layout = self.layout
        places = {"Goal": layout.goal, "Amber": layout.amber, "Jade": layout.jade}
        seen = ". ".join(f"{name}: {relative(layout.start, cell)}" for name, cell in places.items())
        return self._observe(f"{seen}. At most {layout.most} moves.")

    def step(self, action: str) -> Step:
        passed = self._passed(_moves(action))
        arrived = passed[-1] == self.layout.goal
        return Step(
            self._observe("arrived" if arrived else "not arrived"),
            float(arrived),
            done=True,
            success=arrived,
            components={
                "brief": float(arrived and len(passed) - 1 == self.layout.direct),
                "amber": float(self.layout.amber in passed),
                "jade": float(self.layout.jade in passed),
            },
            executed=len(passed) > 1,
        )

    def _passed(self, moves: list[str]) -> list[Cell]:
        """The cells a route comes by, one for the start and one for every move that is made."""
        passed = [self.layout.start]
        for move in moves[: self.layout.most]:
            if passed[-1] == self.layout.goal:
                break
            x, y = shifted(passed[-1], move)
            inside = 0 <= x < self.layout.size and 0 <= y < self.layout.size
            passed.append((x, y) if inside else passed[-1])
        return passed

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("routes", self.layout, text))


def from_spec(argument: str | None, options: Mapping[str, Any]) -> RoutesTask:
    """``routes[:size=6]``."""
    return configure(RoutesTask, argument, options)


def _moves(text: str) -> list[str]:
    return [word for word in re.findall("[a-z]+", text.lower()) if word in COMPASS]
