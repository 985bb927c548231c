"""Grids with subgoals: a key, a door and a goal for one agent; trash to fetch, crush and put away for several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import InputError
from stratagem.multiagent.game import State, chance
from stratagem.multiagent.games import configured, named
from stratagem.multiagent.subgoals import NONE, Subgoal, SubgoalGame, SubgoalTree

MOVES = np.array([(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)])
"""Stay, or go a cell up, right, down or left."""


@dataclass(frozen=True)
class DoorKeyGrid(SubgoalGame):
    """One agent in two rooms: it takes the key, opens the door in the wall between them and walks to the goal.

    A wall fills a column of the square grid and has a door in a row of it; the key and the agent begin left of it, the
    goal is right of it. Actions: stay, a cell up, right, down or left, take the key of the own cell, open the door next
    to the own cell when the key is held. The goal pays ``1 - step_cost * turns / max_turns`` and ends the episode, as
    in MiniGrid's DoorKey, whose agent also has to turn. Everything is seen, each place one-hot by row and by column.

    size: cells in a row, 3 to 16.  max_turns: 1 to 10,000, ``4 size^2`` as published.  step_cost: in [0, 1].
    """

    size: Annotated[int, Ge(3), Le(16)] = 5
    max_turns: Annotated[int, Ge(1), Le(10_000)] = 100
    step_cost: Annotated[float, Ge(0), Le(1)] = 0.9

    agents: ClassVar[int] = 1
    actions: ClassVar[int] = 7
    tree: ClassVar[SubgoalTree] = SubgoalTree((Subgoal("key"), Subgoal("door", ("key",)), Subgoal("goal", ("door",))))

    @property
    def name(self) -> str:
        return named("door_key_grid", self, ("size", "max_turns", "step_cost"))

    @property
    def description(self) -> str:
        return "one agent on a grid takes a key, opens a door and reaches a goal; with subgoals"

    @property
    def features(self) -> int:
        return 8 * self.size + 2

    @property
    def state_features(self) -> int:
        return self.features

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        luck, size = chance(seeds, (8,)), self.size
        wall = 1 + (luck[:, 0] * (size - 2)).astype(np.int64)

        def place(row: np.ndarray, column: np.ndarray, first: Any, columns: np.ndarray) -> np.ndarray:
            return np.stack([(row * size).astype(np.int64), first + (column * columns).astype(np.int64)], -1)

        return {
            "door": np.stack([(luck[:, 1] * size).astype(np.int64), wall], -1),
            "cell": place(luck[:, 2], luck[:, 3], 0, wall),
            "key": place(luck[:, 4], luck[:, 5], 0, wall),
            "goal": place(luck[:, 6], luck[:, 7], wall + 1, size - 1 - wall),
            "stage": np.zeros(len(seeds), dtype=np.int64),
        }

    def practice(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        """Each stage alike: no key yet; the key held; the door open, and the agent in its doorway or left of it."""
        state, luck = self.begin(seeds), chance(seeds ^ 1, (2,))
        stage = (luck[:, 0] * 3).astype(np.int64)
        through = (stage == 2) & (luck[:, 1] < 0.5)
        return {**state, "stage": stage, "cell": np.where(through[:, None], state["door"], state["cell"])}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        act, stage, cell, door = action[:, 0], state["stage"], state["cell"], state["door"]
        moved = np.clip(cell + MOVES[np.where(act < len(MOVES), act, 0)], 0, self.size - 1)
        in_wall = moved[:, 1] == door[:, 1]
        doorway = (moved == door).all(1) & (stage == 2)
        moved = np.where((in_wall & ~doorway)[:, None], cell, moved)
        taken = (act == 5) & (stage == 0) & (cell == state["key"]).all(1)
        opened = (act == 6) & (stage == 1) & (np.abs(cell - door).sum(1) == 1)
        there = (moved == state["goal"]).all(1)
        paid = np.where(there, 1 - self.step_cost * (state["turn"] + 1) / self.max_turns, 0.0)
        stage = stage + taken + opened
        return {"cell": moved, "stage": np.where(there, 3, stage)}, paid[:, None], there

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        held = state["stage"] > 0
        # A key that is held is where the agent is.
        key = np.where(held[:, None], state["cell"], state["key"])
        places = np.stack([state["cell"], key, state["door"], state["goal"]], 1)
        flags = np.stack([held, state["stage"] > 1], -1)
        return np.concatenate([_one_hot(places, self.size), flags], -1)[:, None]

    def achiever(self, state: State) -> Int64[np.ndarray, "copies subgoals"]:
        return np.where(state["stage"][:, None] > np.arange(3), 0, NONE)


@dataclass(frozen=True)
class TrashGrid(SubgoalGame):
    """Agents clear a grid: small trash is taken as it is, large trash must be crushed first, all goes to one bin.

    Actions: stay, a cell up, right, down or left, and work: at the bin it puts down all that is carried; elsewhere it
    takes the first piece of the own cell that can be taken, or else crushes the first large one. Agents act in their
    order. A piece weighs 1, and who carries ``capacity`` takes no more. Each piece put down pays ``1 / pieces``, shared
    by all; every turn costs ``step_cost``; with the last piece the episode ends. Cells are drawn alike, those of
    the trash outside the bin, a corner. Everything is seen: the own place and load, those of the others, and of each
    piece where and in which stage it is, and whether it is in the own hands.

    size: cells in a row, 2 to 16.  agents: 1 to 8.  small, large: pieces, together 1 to 12.  capacity: at least 1.
    max_turns: 1 to 10,000.  step_cost: in [0, 1].
    """

    size: Annotated[int, Ge(2), Le(16)] = 5
    agents: Annotated[int, Ge(1), Le(8)] = 2
    small: Annotated[int, Ge(0)] = 2
    large: Annotated[int, Ge(0)] = 1
    capacity: Annotated[int, Ge(1)] = 3
    max_turns: Annotated[int, Ge(1), Le(10_000)] = 50
    step_cost: Annotated[float, Ge(0), Le(1)] = 0.0

    actions: ClassVar[int] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.pieces <= 12:
            raise InputError(f"task trash_grid: small + large = {self.pieces}: must be 1 to 12")

    @property
    def pieces(self) -> int:
        """Of trash; the small ones come first."""
        return self.small + self.large

    @property
    def name(self) -> str:
        options = ("size", "agents", "small", "large", "capacity", "max_turns", "step_cost")
        return named("trash_grid", self, options)

    @property
    def description(self) -> str:
        return "agents on a grid fetch trash and put it into a bin, large pieces crushed; with subgoals"

    @property
    def tree(self) -> SubgoalTree:
        """For each piece, small ones first: take it, put it down; for each large one besides: crush it first."""
        crush = tuple(Subgoal(f"crush{n}") for n in range(self.small, self.pieces))
        take = tuple(Subgoal(f"take{n}", (f"crush{n}",) if n >= self.small else ()) for n in range(self.pieces))
        return SubgoalTree((*crush, *take, *(Subgoal(f"put{n}", (f"take{n}",)) for n in range(self.pieces))))

    @property
    def features(self) -> int:
        return 2 * self.size + 1 + 3 * (self.agents - 1) + self.pieces * (2 * self.size + 5)

    @property
    def state_features(self) -> int:
        return self.agents * (2 * self.size) + self.pieces * (2 * self.size + 4 + self.agents)

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        luck = chance(seeds, (2 * self.agents + self.pieces,))
        cell = (luck[:, : 2 * self.agents] * self.size).astype(np.int64).reshape(-1, self.agents, 2)
        place = 1 + (luck[:, 2 * self.agents :] * (self.size**2 - 1)).astype(np.int64)
        nobody = np.full((len(seeds), self.pieces), NONE)
        trash = np.stack(np.divmod(place, self.size), -1)
        return {"cell": cell, "trash": trash, "crusher": nobody[:, : self.large], "taker": nobody, "putter": nobody}

    def practice(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        """Each piece alike on the ground, crushed on the ground, in the hands of some agent, or put away."""
        state, luck = self.begin(seeds), chance(seeds ^ 1, (self.pieces, 2))
        stage, who = (luck[..., 0] * 4).astype(np.int64), (luck[..., 1] * self.agents).astype(np.int64)
        taker = np.where(stage >= 2, who, NONE)
        mine = taker[:, :, None] == np.arange(self.agents)
        before = (mine.cumsum(1) * mine).sum(-1)
        stage = np.where((stage == 2) & (before > self.capacity), 3, stage)
        # Not everything is put away, or there is nothing to practise.
        stage[:, 0] = np.where((stage == 3).all(1), 0, stage[:, 0])
        taker, crushed = np.where(stage >= 2, who, NONE), np.where(stage >= 1, who, NONE)
        return {**state, "crusher": crushed[:, self.small :], "taker": taker, "putter": np.where(stage == 3, who, NONE)}

    def transition(
        self, state: State, action: Int64[np.ndarray, "copies agents"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        move = MOVES[np.where(action < len(MOVES), action, 0)]
        cell = np.clip(state["cell"] + move, 0, self.size - 1)
        crusher, taker, putter = (state[name].copy() for name in ("crusher", "taker", "putter"))
        for agent in range(self.agents):  # In turn, so that no piece is taken twice.
            self._work(agent, action[:, agent] == 5, cell[:, agent], state["trash"], crusher, taker, putter)
        put = (putter != NONE).sum(1)
        paid = (put - (state["putter"] != NONE).sum(1)) / self.pieces - self.step_cost
        changed = {"cell": cell, "crusher": crusher, "taker": taker, "putter": putter}
        return changed, paid[:, None], put == self.pieces

    def _work(
        self,
        agent: int,
        works: Bool[np.ndarray, " copies"],
        cell: Int64[np.ndarray, "copies 2"],
        trash: Int64[np.ndarray, "copies pieces 2"],
        crusher: Int64[np.ndarray, "copies large"],
        taker: Int64[np.ndarray, "copies pieces"],
        putter: Int64[np.ndarray, "copies pieces"],
    ) -> None:
        """What this agent's work changes, in place."""
        at_bin = (cell == 0).all(1)
        held = (taker == agent) & (putter == NONE)
        putter[(works & at_bin)[:, None] & held] = agent
        here = (works & ~at_bin)[:, None] & (taker == NONE) & (trash == cell[:, None]).all(-1)
        ready = np.concatenate([np.full((len(cell), self.small), True), crusher != NONE], 1)
        takes = here & ready & (held.sum(1) < self.capacity)[:, None]
        first = takes & (takes.cumsum(1) == 1)
        taker[first] = agent
        crushes = (here & ~ready)[:, self.small :] & ~takes.any(1, keepdims=True)
        crusher[crushes & (crushes.cumsum(1) == 1)] = agent

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        cell, copies = state["cell"], len(state["cell"])
        held = (state["taker"][:, None] == np.arange(self.agents)[:, None]) & (state["putter"] == NONE)[:, None]
        load = held.sum(-1) / self.capacity
        own = np.concatenate([_one_hot(cell[:, :, None], self.size), load[..., None]], -1)
        there = np.concatenate([cell / self.size, load[..., None]], -1)[:, None].repeat(self.agents, 1)
        others = there[:, ~np.eye(self.agents, dtype=bool)].reshape(copies, self.agents, -1)
        pieces = np.broadcast_to(self._pieces(state)[:, None], (copies, self.agents, *self._pieces(state).shape[1:]))
        seen = np.concatenate([pieces, held[..., None]], -1).reshape(copies, self.agents, -1)
        return np.concatenate([own, others, seen], -1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        holder = (state["taker"][:, :, None] == np.arange(self.agents)) & (state["putter"] == NONE)[:, :, None]
        pieces = np.concatenate([self._pieces(state), holder], -1)
        return np.concatenate([_one_hot(state["cell"], self.size), pieces.reshape(len(pieces), -1)], -1)

    def _pieces(self, state: State) -> Float[np.ndarray, "copies pieces told"]:
        """Where each piece lies, and its stage one-hot: to be crushed, to be taken, carried, put away."""
        small = np.zeros((len(state["taker"]), self.small), dtype=np.int64)
        crushed = np.concatenate([small, state["crusher"]], 1) != NONE
        stage = crushed.astype(np.int64) + (state["taker"] != NONE) + (state["putter"] != NONE)
        on_ground = (state["taker"] == NONE)[..., None]
        place = _one_hot(state["trash"][:, :, None], self.size) * on_ground
        return np.concatenate([place, stage[..., None] == np.arange(4)], -1)

    def achiever(self, state: State) -> Int64[np.ndarray, "copies subgoals"]:
        return np.concatenate([state["crusher"], state["taker"], state["putter"]], 1)

    def possible(self, state: State) -> Bool[np.ndarray, "copies agents subgoals"]:
        """Taking is for those with room for it, putting down for those who carry."""
        agent = np.arange(self.agents)[:, None]
        held = (state["taker"][:, None] == agent) & (state["putter"] == NONE)[:, None]
        room = np.broadcast_to((held.sum(-1) < self.capacity)[..., None], held.shape)
        crush = np.ones((*held.shape[:2], self.large), dtype=bool)
        return np.concatenate([crush, room, held], -1)


def _one_hot(places: Int64[np.ndarray, "*rows places 2"], size: int) -> Float[np.ndarray, "*rows features"]:
    """Rows and columns of places, one-hot."""
    hot: np.ndarray = (places[..., None] == np.arange(size)).astype(float).reshape(*places.shape[:-2], -1)
    return hot


# ---- by specification ----------------------------------------------------------------------------------------------


def door_key_grid(argument: str | None, options: Mapping[str, Any]) -> DoorKeyGrid:
    """The task ``door_key_grid[:size=5,...]``."""
    return configured("door_key_grid", DoorKeyGrid, argument, options)


def trash_grid(argument: str | None, options: Mapping[str, Any]) -> TrashGrid:
    """The task ``trash_grid[:size=5,agents=2,...]``."""
    return configured("trash_grid", TrashGrid, argument, options)
