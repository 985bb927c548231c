"""A universe of tasks on a small grid: worlds with walls, coloured floors and objects, and a goal for every player."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Int64
from torch import Tensor

from stratagem.errors import InputError, unknown
from stratagem.openended.goals import Goals
from stratagem.openended.predicates import FLOORS, OBJECTS, perspectives, predicates, word
from stratagem.openended.probes import PROBES, probe_goals
from stratagem.openended.proposals import Proposals
from stratagem.seeding import derive, uniform
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Split

ACTIONS = ("stay", "north", "south", "west", "east", "hold")
"""``hold`` takes up an object within a step, the nearest first, or puts the one that is held down here."""

_OPTIONS = ("side", "horizon", "objects", "options", "atoms", "walls", "negations", "flips")
_COMPANY = ("players", "same", "opposite", "probe", "coplayers", "snapshot_every", "snapshots")


def from_spec(argument: str | None, options: Mapping[str, str]) -> OpenEndedTask:
    """The task ``openended:grid[,side=7][,horizon=50][,objects=3][,options=2][,atoms=2][,players=1][,...]``.

    Raises :class:`InputError` for a name or value that is wrong.
    """
    check_names("openended", options, [*_OPTIONS, *_COMPANY])
    if argument != "grid":
        raise InputError(f"task openended: {argument!r} is no universe; there is openended:grid")
    return OpenEndedTask(**options)  # type: ignore[arg-type]  # strings are converted by validate


@dataclass(frozen=True, eq=False)
class Tasks:
    """``n`` tasks: their worlds and the goals of their players.

    floor: number of the colour of each cell, -1 for none.  agent, object: cells (row, column) at the start.
    Players and goals have a row for every seat: those of a task side by side, that of the learner first. Each goal is
    in the eyes of its player.
    """

    number: Int64[Tensor, " n"]
    wall: Bool[Tensor, "n side side"]
    floor: Int64[Tensor, "n side side"]
    agent: Int64[Tensor, "seats 2"]
    object: Int64[Tensor, "n objects 2"]
    goals: Goals

    def __len__(self) -> int:
        return len(self.number)

    @property
    def players(self) -> int:
        """Of each task."""
        return len(self.agent) // len(self)

    def at(self, rows: Tensor) -> Tasks:
        """These tasks alone, by number or mask."""
        seats = torch.arange(len(self.agent)).view(len(self), -1)[rows].flatten()
        number, wall, floor, thing = (one[rows] for one in (self.number, self.wall, self.floor, self.object))
        return Tasks(number, wall, floor, self.agent[seats], thing, self.goals.at(seats))


@dataclass(frozen=True)
class OpenEndedTask:
    """A universe of tasks, whose players see the whole world as symbols, and of the goals only their own.

    Reward 1 in every step in which the goal holds; a goal may hold from the start, or never. An episode has
    ``horizon`` steps. Predicates: ``near`` (at most one step apart, players and objects), ``hold``, ``on`` (a floor,
    players and objects) and ``see`` (within ``SIGHT``). What is held is where the player is.

    side: of the grid.  objects: up to four.  options, atoms: most of a goal, and of an option; each number is as
    likely.  walls: share of cells.  negations: chance of an atom to be negated.
    flips: reward 1 whenever the goal begins to hold, from then on whenever it ceases to, and so on, so that an agent
    learns to control it (self-reward play).

    players: up to three. They act at once and, as bodies do, take up a cell each: who walks into a player that stays
    stays, as do two that walk into the same cell or through each other. An object is held by one player at most: of
    those who reach for it at once the nearest gets it, of equally near ones nobody. A goal speaks of its own player as
    ``agent`` and of those in the next seats as ``player1`` and ``player2``. The learner has the first seat.
    same, opposite: chance of a player, after the first, to have the same goal as another, so that they are rewarded
    together, or its exact opposite, so that one is rewarded whenever the other is not; otherwise its goal is drawn by
    itself. To have an opposite of its own size a goal is cut to that (:meth:`Goals.with_small_opposites`).
    probe: a game written by hand in place of goals drawn at random, for two players (:data:`PROBES`).
    coplayers: folder of frozen policies, see :class:`CoPlayers`, to which ``snapshot_every`` (batches between snapshots
    of the policy that learns, 0 for none) and ``snapshots`` (how many are kept) belong, too.

    Task ``number`` of a split is the same in every process. That players are solid as in the published universe, the
    chances, and who gets an object are choices of ours. Raises :class:`InputError` for a value out of range.
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
    players: Annotated[int, Ge(1), Le(3)] = 1
    same: Annotated[float, Ge(0), Le(1)] = 0.25
    opposite: Annotated[float, Ge(0), Le(1)] = 0.25
    probe: str | None = None
    coplayers: str | None = None
    snapshot_every: Annotated[int, Ge(0)] = 10
    snapshots: Annotated[int, Ge(1)] = 8

    def __post_init__(self) -> None:
        validate(self)
        if self.same + self.opposite > 1:
            raise InputError(
                f"task {self.name}: same = {self.same:g} and opposite = {self.opposite:g} must be at most 1 together"
            )
        if self.players == 1:
            asked = [name for name in _COMPANY if getattr(self, name) != getattr(OpenEndedTask, name)]
            if asked:
                raise InputError(f"task {self.name}: {asked[0]} is for several players; add players=2")
        if self.probe is not None:
            if self.probe not in PROBES:
                raise unknown("probe of task 'openended':", self.probe, PROBES)
            if self.players != 2:
                raise InputError(f"task {self.name}: probe is for two players; set players=2")
            lacking = [name for name, _ in PROBES[self.probe] if name not in self.predicates]
            if lacking:
                raise InputError(f"task {self.name}: probe {self.probe!r} is about {lacking[0]!r}; set objects=2")

    @property
    def name(self) -> str:
        """How the command line calls it."""
        changed = {
            name: getattr(self, name)
            for name in (*_OPTIONS, *_COMPANY)
            if getattr(self, name) != getattr(OpenEndedTask, name)
        }
        said = (f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in changed.items())
        return ",".join(["openended:grid", *said])

    @property
    def description(self) -> str:
        """One line."""
        return "a universe of grid worlds with goals made of predicates"

    @cached_property
    def predicates(self) -> tuple[str, ...]:
        """Their names, in the order of their truth (:meth:`Grid.truth`)."""
        return tuple(word(one) for one in predicates(self.players, self.objects))

    @cached_property
    def perspectives(self) -> Int64[Tensor, "players predicates"]:
        """For every seat and predicate, which one it is in the eyes of seat 0."""
        return perspectives(self.players, self.objects)

    def tasks(self, split: Split, numbers: Sequence[int]) -> Tasks:
        """The tasks of these numbers."""
        cells, count = self.side**2, len(numbers)
        seeds = torch.tensor([derive(number, "openended", split) for number in numbers], dtype=torch.int64)
        sizes = [cells, cells, cells, self._proposals.numbers]
        chance = uniform(seeds.unsqueeze(1), torch.arange(sum(sizes)).unsqueeze(0))
        order, walls, floors, goals = chance.split(sizes, 1)
        places = order.argsort(1)[:, : self.players + self.objects]
        wall = (walls < self.walls).scatter(1, places, False).view(count, self.side, self.side)
        # A third of the floor is coloured, one colour as likely as another.
        colour = (floors * 3 * len(FLOORS)).long()
        colour = torch.where(colour < len(FLOORS), colour, -1).view(count, self.side, self.side)
        place = torch.stack([places // self.side, places % self.side], -1)
        agent, thing = place.split([self.players, self.objects], 1)
        wanted = self._proposals(goals) if self.probe is None else self._probed(count)
        return Tasks(
            torch.tensor(list(numbers)), wall, colour.masked_fill(wall, -1), agent.flatten(0, 1), thing, wanted
        )

    @cached_property
    def _proposals(self) -> Proposals:
        known = len(self.predicates)
        chances = self.same, self.opposite
        return Proposals(known, self.options, self.atoms, self.negations, self.perspectives, *chances)

    def _probed(self, count: int) -> Goals:
        assert self.probe is not None, "asked for"
        mine, theirs = (goal.resized(self.options, self.atoms) for goal in probe_goals(self.probe, self.predicates))
        both = Goals(torch.cat([mine.atom, theirs.atom]), torch.cat([mine.negated, theirs.negated]))
        return both.at(torch.arange(2).repeat(count))
