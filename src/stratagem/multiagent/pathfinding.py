"""Lifelong pathfinding: agents on a grid go from goal to goal, each by a plan of its own, and learn to keep to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent.game import MarkovGame, State
from stratagem.multiagent.games import configured, named
from stratagem.multiagent.grids import free_cell, largest_rooms, moved, plan, static_costs
from stratagem.multiagent.sketch import Sketch
from stratagem.seeding import uniform

WAYPOINT_REWARD = 0.01
"""What a step to the waypoint pays."""

ATTEMPTS = 64
"""Maps that are drawn before a game is said to have no room."""


@dataclass(frozen=True)
class Follower:
    """How every agent plans, what it sees of that, and what it is paid (arXiv 2310.01207).

    Entering a cell costs ``c_s(v) + n_v``: ``c_s`` is high where the map is central
    (:func:`~stratagem.multiagent.grids.static_costs`), ``n_v`` counts the turns in which the agent saw another one
    there since it got its goal. Every turn each agent plans anew with these costs. An observation is a window around
    the agent of two channels: 1 on its path and -1 on walls, and 1 where others are. It is paid 0.01 when it is where
    its last plan wanted it next, and for nothing else.

    sight: cells in a row or column up to which an agent sees others.  view: the same for what its policy reads.
    static, dynamic: whether ``c_s`` (else 1) and ``n_v`` (else 0) count.
    """

    agents: int
    sight: int
    view: int
    static: bool
    dynamic: bool

    @property
    def window(self) -> tuple[int, int, int]:
        """Channels and sides of an observation."""
        return 2, 2 * self.view + 1, 2 * self.view + 1

    def costs(self, wall: Bool[np.ndarray, "maps height width"]) -> Float[np.ndarray, "maps height width"]:
        """What entering the cells of these maps costs when nobody is seen."""
        return static_costs(wall) if self.static else np.where(wall, np.inf, 1.0)

    def begin(self, wall: Bool[np.ndarray, "copies height width"], cell: np.ndarray, goal: np.ndarray) -> State:
        """What agents have planned when an episode begins."""
        copies, height, width = wall.shape
        crowd = np.zeros((copies, self.agents, height, width), dtype=np.int32)
        return self.planned({"wall": wall, "cost": self.costs(wall), "crowd": crowd}, cell, goal, goal)

    def planned(
        self,
        state: State,
        cell: Int64[np.ndarray, "copies agents"],
        goal: Int64[np.ndarray, "copies agents"],
        earlier: Int64[np.ndarray, "copies agents"],
    ) -> State:
        """The state after agents have looked around and planned. earlier: the goals they had before."""
        wall, cost = state["wall"], state["cost"]
        copies, height, width = wall.shape
        crowd = np.where((goal != earlier)[..., None, None], 0, state["crowd"])
        place = np.stack([cell // width, cell % width], -1)
        near = np.abs(place[:, None] - place[:, :, None]).max(-1) <= self.sight  # [copies, who looks, at whom]
        near &= ~np.eye(self.agents, dtype=bool) & (cell != goal)[..., None]
        copy, who, whom = np.nonzero(near)
        crowd[copy, who, place[copy, whom, 0], place[copy, whom, 1]] += 1
        total = cost[:, None] + (crowd if self.dynamic else 0)
        total = np.broadcast_to(total, crowd.shape).reshape(-1, height, width)
        made = plan(total, cell.reshape(-1), goal.reshape(-1), self.view)
        shape = (copies, self.agents)
        return {
            **state,
            "crowd": crowd,
            "cell": cell,
            "goal": goal,
            "waypoint": made.waypoint.reshape(shape),
            "path": made.path.reshape(*shape, -1),
        }

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        """The windows of all agents."""
        wall, cell = state["wall"], state["cell"]
        copies, _, width = wall.shape
        radius, side = self.view, 2 * self.view + 1
        blocked = np.pad(wall, ((0, 0), (radius, radius), (radius, radius)), constant_values=True)
        standing = np.zeros(blocked.shape, dtype=np.int16)
        own = np.arange(copies)[:, None]
        row, column = cell // width, cell % width
        standing[own, row + radius, column + radius] = 1
        rows = (row[..., None] + np.arange(side))[..., :, None]
        columns = (column[..., None] + np.arange(side))[..., None, :]
        which = own[..., None, None]
        walls = blocked[which, rows, columns].reshape(copies, self.agents, -1)
        others = standing[which, rows, columns].reshape(copies, self.agents, -1)
        others[..., side * side // 2] = 0
        return np.concatenate([state["path"].astype(np.float32) - walls, others], -1)

    def paid(self, state: State, cell: Int64[np.ndarray, "copies agents"]) -> Float[np.ndarray, "copies agents"]:
        """What agents get who had planned this and are now there."""
        earned: np.ndarray = np.where(cell == state["waypoint"], WAYPOINT_REWARD, 0.0)
        return earned


class Followed:
    """What games have in common whose agents plan and see as a :class:`Follower` says."""

    agents: int
    sight: int
    view: int
    static: bool
    dynamic: bool

    @property
    def follower(self) -> Follower:
        """How agents plan, see and are paid."""
        return Follower(self.agents, self.sight, self.view, self.static, self.dynamic)

    @property
    def window(self) -> tuple[int, int, int]:
        """Channels and sides of an observation."""
        return self.follower.window

    @property
    def features(self) -> int:
        """Numbers in an observation."""
        return math.prod(self.window)

    @property
    def state_features(self) -> int:
        """Numbers in the state: where all are and want to be."""
        return 4 * self.agents


@dataclass(frozen=True)
class PathfindingGame(Followed, MarkovGame):
    """Agents on a grid with random walls, who get a new goal whenever they reach theirs (arXiv 2310.01207).

    All move at once, up, down, left, right or not at all, with the collisions of
    :func:`~stratagem.multiagent.grids.moved`. Every episode has a map of its own, of which only the largest connected
    part is free; goals are free cells, each as likely. Plans, observations and pay are those of :class:`Follower`.
    The state that a critic may see is where all are and want to be.

    size: cells in a row, 3 to 48.  density: how likely a cell is a wall, in [0, 0.6].  agents: 1 to 256.
    pay: ``waypoint``, or ``goal``: 1 for every goal reached, by which throughput is measured: the mean return of an
    episode times agents, over turns.  max_turns: 1 to 10,000.  sight, view, static, dynamic: as of :class:`Follower`;
    ``view`` at most ``sight``.
    """

    size: Annotated[int, Ge(3), Le(48)] = 12
    density: Annotated[float, Ge(0), Le(0.6)] = 0.2
    agents: Annotated[int, Ge(1), Le(256)] = 16
    sight: Annotated[int, Ge(1), Le(16)] = 5
    view: Annotated[int, Ge(1), Le(16)] = 3
    static: bool = True
    dynamic: bool = True
    pay: Literal["waypoint", "goal"] = "waypoint"
    max_turns: Annotated[int, Gt(0), Le(10_000)] = 256

    actions: ClassVar[int] = 5
    shared_reward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.view > self.sight:
            raise InputError(f"task {self.name}: view = {self.view}: must be at most sight = {self.sight}")
        if 2 * self.agents > self.size**2 * (1 - self.density):
            room = int(self.size**2 * (1 - self.density)) // 2
            raise InputError(
                f"task {self.name}: agents = {self.agents}: at most {room}, half of the free cells there will be"
            )

    @property
    def name(self) -> str:
        options = ("size", "density", "agents", "sight", "view", "static", "dynamic", "pay", "max_turns")
        return named("pathfinding", self, options)

    @property
    def description(self) -> str:
        return "agents on a grid go from goal to goal, planning their own paths"

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        wall = self.maps(seeds)
        free = ~wall.reshape(len(seeds), -1)
        order = np.where(free, own_chance(seeds, 0, free.shape[1]), 2.0).argsort(1)
        cell = order[:, : self.agents]
        goal = self._goals(free, own_chance(seeds, 1, self.agents), cell, np.ones(cell.shape, dtype=bool), cell)
        counts = {name: np.zeros(cell.shape, dtype=np.int64) for name in ("reached", "waited")}
        return {**self.follower.begin(wall, cell, goal), **counts}

    def maps(self, seeds: Int64[np.ndarray, " copies"]) -> Bool[np.ndarray, "copies size size"]:
        """Walls of the episodes with these seeds. Raises :class:`BrokenRunError` when none leaves enough room."""
        wall = np.ones((len(seeds), self.size, self.size), dtype=bool)
        for attempt in range(ATTEMPTS):
            without = np.flatnonzero((~wall).sum((1, 2)) < 2 * self.agents)
            if not len(without):
                return wall
            drawn = own_chance(seeds[without], 2 + attempt, self.size**2) < self.density
            wall[without] = largest_rooms(drawn.reshape(-1, self.size, self.size))
        raise BrokenRunError(
            f"task {self.name}: {ATTEMPTS} maps in a row had no connected room of {2 * self.agents} cells"
        )

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies agents"], Bool[np.ndarray, " copies"]]:
        cell = moved(state["wall"], state["cell"], action)
        there = cell == state["goal"]
        drawn = own_chance(state["seed"], 2 + ATTEMPTS + state["turn"], self.agents)
        goal = self._goals(~state["wall"].reshape(len(cell), -1), drawn, cell, there, state["goal"])
        changed = self.follower.planned(state, cell, goal, state["goal"])
        reward = there.astype(float) if self.pay == "goal" else self.follower.paid(state, cell)
        counts = {"reached": state["reached"] + there, "waited": np.where(there, 0, state["waited"] + 1)}
        return {**changed, **counts}, reward, np.full(len(cell), False)

    def _goals(
        self, free: np.ndarray, drawn: np.ndarray, cell: np.ndarray, asked: np.ndarray, goal: np.ndarray
    ) -> Int64[np.ndarray, "copies agents"]:
        """A new goal for each agent that asks for one."""
        copy, agent = np.nonzero(asked)
        goal = goal.copy()
        goal[copy, agent] = free_cell(free[copy], drawn[copy, agent], cell[copy, agent])
        return goal

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        return self.follower.observe(state)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        numbers = np.stack([state["cell"], state["goal"]], -1)
        places = np.stack([numbers // self.size, numbers % self.size], -1) / self.size
        return places.reshape(len(places), -1)

    def sketch(self, state: State) -> Sketch:
        return grid_sketch(state["wall"][0], state["cell"][0], state["goal"][0])


def grid_sketch(
    wall: Bool[np.ndarray, "height width"], cell: Int64[np.ndarray, " agents"], goal: Int64[np.ndarray, " agents"]
) -> Sketch:
    """A grid with its agents and where they want to be."""
    height, width = wall.shape
    row, column = np.nonzero(wall)
    place, wanted = (np.stack([numbers % width, numbers // width], -1) + 0.5 for numbers in (cell, goal))
    return Sketch(width, height, place, wanted, 0.36, np.stack([column, row], -1))


def own_chance(
    seeds: Int64[np.ndarray, " copies"], stream: int | Int64[np.ndarray, " copies"], count: int
) -> Float[np.ndarray, "copies count"]:
    """Numbers in [0, 1) of an episode's seed, other ones in every stream and of all that ``chance`` gives."""
    first = -1 - 4096 * np.broadcast_to(np.asarray(stream, dtype=np.int64), seeds.shape)
    counters = torch.from_numpy(first[:, None] - np.arange(count))
    drawn: np.ndarray = uniform(torch.from_numpy(np.ascontiguousarray(seeds))[:, None], counters).numpy()
    return drawn


def from_spec(argument: str | None, options: Mapping[str, Any]) -> PathfindingGame:
    """The task ``pathfinding[:size=12,agents=16,...]``. Raises :class:`InputError` for a wrong option."""
    return configured("pathfinding", PathfindingGame, argument, options)
