"""A game with subgoals to be followed by hand: agents on a line touch its left end, and after that its right one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from stratagem.multiagent import Subgoal, SubgoalGame, SubgoalTree
from stratagem.multiagent.subgoals import NONE

LENGTH = 5


@dataclass(frozen=True)
class Corridor(SubgoalGame):
    """Agent ``a`` begins at ``starts[a]`` of cells 0 to 4; action 1 is a cell left, 2 a cell right.

    Everybody is paid 1 when somebody stands on the right end after somebody has touched the left one.
    """

    starts: tuple[int, ...] = (1, 3)
    max_turns: int = 20
    mission: bool = False

    features: ClassVar[int] = 2  # type: ignore[misc]
    actions: ClassVar[int] = 3  # type: ignore[misc]

    name = "corridor"  # type: ignore[assignment]
    description = "agents on a line"  # type: ignore[assignment]

    @property
    def agents(self) -> int:
        return len(self.starts)

    @property
    def tree(self) -> SubgoalTree:
        if self.mission:
            return SubgoalTree((Subgoal("mission"),))
        return SubgoalTree((Subgoal("left"), Subgoal("right", ("left",))))

    def begin(self, seeds: np.ndarray) -> dict[str, np.ndarray]:
        place = np.tile(np.array(self.starts), (len(seeds), 1))
        return {"place": place, "by": np.full((len(seeds), 2), NONE)}

    def transition(self, state: Any, action: np.ndarray) -> Any:
        place = np.clip(state["place"] + np.array([0, -1, 1])[action], 0, LENGTH - 1)
        by = state["by"].copy()
        for subgoal, (cell, ready) in enumerate(((0, True), (LENGTH - 1, by[:, 0] != NONE))):
            there = (place == cell) & np.broadcast_to(np.array(ready)[..., None], place.shape)
            first = there.any(1) & (by[:, subgoal] == NONE)
            by[first, subgoal] = there[first].argmax(1)
        over = by[:, 1] != NONE
        paid = (1 - 0.5 * (state["turn"] + 1) / self.max_turns) if self.mission else np.ones(len(place))
        return {"place": place, "by": by}, (over * paid)[:, None], over

    def observe(self, state: Any) -> np.ndarray:
        return np.stack(
            [state["place"] / LENGTH, np.broadcast_to(state["by"][:, :1] != NONE, state["place"].shape)], -1
        )

    def achiever(self, state: Any) -> np.ndarray:
        return np.asarray(state["by"][:, 1:] if self.mission else state["by"])


@dataclass(frozen=True)
class Endless(Corridor):
    """The same without a limit."""

    max_turns: int | None = None  # type: ignore[assignment]


def straight(observation: np.ndarray, legal: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Followers that walk to the end they were told of."""
    return np.where(observation[..., 2] > 0, 1, 2)


def still(observation: np.ndarray, legal: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Followers that never move."""
    return np.zeros(observation.shape[:2], dtype=np.int64)
