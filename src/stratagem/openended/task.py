"""A universe of tasks on a small grid: worlds with walls, coloured floors and objects, and a goal for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.openended.goals import ABSENT, Goals
from stratagem.seeding import derive, uniform
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Split

OBJECTS = ("ball", "box", "cone", "disc")
FLOORS = ("red", "green", "blue")

ACTIONS = ("stay", "north", "south", "west", "east", "hold")
"""``hold`` takes up an object within a step, the nearest first, or puts the one that is held down here."""

SIGHT = 2
"""Cells at most, along rows and along columns, at which an object is seen."""

_OPTIONS = ("side", "horizon", "objects", "options", "atoms", "walls", "negations", "flips")


def from_spec(argument: str | None, options: Mapping[str, str]) -> OpenEndedTask:
    """The task ``openended:grid[,side=7][,horizon=50][,objects=3][,options=2][,atoms=2][,...]``.

    Raises :class:`InputError` for a name or value that is wrong.
    """
    check_names("openended", options, list(_OPTIONS))
    if argument != "grid":
        raise InputError(f"task openended: {argument!r} is no universe; there is openended:grid")
    return OpenEndedTask(**options)  # type: ignore[arg-type]  # strings are converted by validate


@dataclass(frozen=True, eq=False)
class Tasks:
    """``n`` tasks: their worlds and goals.

    floor: number of the colour of each cell, -1 for none.  agent, object: cells (row, column) at the start.
    """

    number: Int64[Tensor, " n"]
    wall: Bool[Tensor, "n side side"]
    floor: Int64[Tensor, "n side side"]
    agent: Int64[Tensor, "n 2"]
    object: Int64[Tensor, "n objects 2"]
    goals: Goals

    def __len__(self) -> int:
        return len(self.number)

    def at(self, rows: Tensor) -> Tasks:
        """These tasks alone, by number or mask."""
        columns = {name: column[rows] for name, column in vars(self).items() if name != "goals"}
        return Tasks(**columns, goals=self.goals.at(rows))


@dataclass(frozen=True)
class OpenEndedTask:
    """A task universe for one player, who sees the whole world and its goal, as symbols.

    Reward 1 in every step in which the goal holds; a goal may hold from the start, or never. An episode has
    ``horizon`` steps. Predicates: ``near`` (at most one step apart, agent and objects), ``hold``, ``on`` (a floor,
    agent and objects) and ``see`` (within ``SIGHT``). What is held is where the agent is.

    side: of the grid.  objects: up to four.  options, atoms: most of a goal, and of an option; each number is as
    likely.  walls: share of cells.  negations: chance of an atom to be negated.
    flips: reward 1 whenever the goal begins to hold, from then on whenever it ceases to, and so on, so that an agent
    learns to control it (self-reward play).

    Task ``number`` of a split is the same in every process. Raises :class:`InputError` for a value out of range.
    """

    family: ClassVar[str] = "openended"

    side: Annotated[int, Ge(3), Le(20)] = 7
    horizon: Annotated[int, Ge(1), Le(1000)] = 50
    objects: Annotated[int, Ge(1), Le(len(OBJECTS))] = 3
    options: Annotated[int, Ge(1), Le(4)] = 2
    atoms: Annotated[int, Ge(1), Le(4)] = 2
    walls: Annotated[float, Ge(0), Le(0.5)] = 0.1
    negations: Annotated[float, Ge(0), Le(1)] = 0.25
    flips: bool = False

    def __post_init__(self) -> None:
        validate(self)

    @property
    def name(self) -> str:
        """How the command line calls it."""
        changed = [name for name in _OPTIONS if getattr(self, name) != getattr(OpenEndedTask, name)]
        return ",".join(["openended:grid", *(f"{name}={getattr(self, name)}".lower() for name in changed)])

    @property
    def description(self) -> str:
        """One line."""
        return "a universe of grid worlds with goals made of predicates"

    @cached_property
    def predicates(self) -> tuple[str, ...]:
        """Their names, in the order of their truth (:meth:`Grid.truth`)."""
        objects = OBJECTS[: self.objects]
        return (
            *(f"near agent {one}" for one in objects),
            *(f"near {one} {other}" for one, other in combinations(objects, 2)),
            *(f"hold {one}" for one in objects),
            *(f"see {one}" for one in objects),
            *(f"on agent {floor}" for floor in FLOORS),
            *(f"on {one} {floor}" for one in objects for floor in FLOORS),
        )

    def tasks(self, split: Split, numbers: Sequence[int]) -> Tasks:
        """The tasks of these numbers."""
        cells, count = self.side**2, len(numbers)
        seeds = torch.tensor([derive(number, "openended", split) for number in numbers], dtype=torch.int64)
        atoms = self.options * self.atoms
        sizes = [cells, cells, cells, 1, self.options, atoms, atoms]
        chance = uniform(seeds.unsqueeze(1), torch.arange(sum(sizes)).unsqueeze(0))
        order, walls, floors, options, lengths, atom, signs = chance.split(sizes, 1)
        places = order.argsort(1)[:, : self.objects + 1]
        wall = (walls < self.walls).scatter(1, places, False).view(count, self.side, self.side)
        # A third of the floor is coloured, one colour as likely as another.
        colour = (floors * 3 * len(FLOORS)).long()
        colour = torch.where(colour < len(FLOORS), colour, -1).view(count, self.side, self.side)
        place = torch.stack([places // self.side, places % self.side], -1)
        goals = self._goals(options, lengths, atom, signs)
        return Tasks(torch.tensor(list(numbers)), wall, colour.masked_fill(wall, -1), place[:, 0], place[:, 1:], goals)

    def _goals(
        self,
        options: Float64[Tensor, "n 1"],
        lengths: Float64[Tensor, "n options"],
        atom: Float64[Tensor, "n atoms"],
        signs: Float64[Tensor, "n atoms"],
    ) -> Goals:
        shape = (len(options), self.options, self.atoms)
        there = torch.arange(self.options) <= (options * self.options).long()
        within = torch.arange(self.atoms) <= (lengths * self.atoms).long().unsqueeze(-1)
        number = (atom * len(self.predicates)).long().view(shape)
        number = torch.where(there.unsqueeze(-1) & within, number, ABSENT)
        return Goals(number, (signs < self.negations).view(shape))
