"""Co-players: who sits in the other seats, drawn for every task from a pool, and how all of them act together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.openended.grid import Grid
from stratagem.openended.policy import GoalPolicy, Shape
from stratagem.openended.task import ACTIONS, OpenEndedTask, Tasks
from stratagem.seeding import derive, uniform
from stratagem.tasks.task import Split

RANDOM = "random"
"""Name of the player that acts at random, whom every pool has."""


class Player(Protocol):
    """What acts in a seat."""

    def draw(self, observation: Float[Tensor, "n features"], source: torch.Generator | None) -> Int64[Tensor, " n"]:
        """Actions; without a source the likeliest."""
        ...


class RandomPlayer:
    """Every action as likely."""

    def draw(self, observation: Float[Tensor, "n features"], source: torch.Generator | None) -> Int64[Tensor, " n"]:
        """Actions, also without a source at random."""
        return torch.randint(len(ACTIONS), (len(observation),), generator=source)


class Table:
    """Who sits where: by world and seat the number of a player. Every player acts by one call for all its seats.

    source: of what players draw.
    """

    def __init__(
        self, players: Sequence[Player], seated: Int64[Tensor, "worlds seats"], source: torch.Generator | None
    ) -> None:
        self._shape, self._source = seated.shape, source
        placed = ((player, seated == number) for number, player in enumerate(players))
        self._placed = [(player, where) for player, where in placed if bool(where.any())]

    def act(self, observation: Float[Tensor, "worlds seats features"]) -> Int64[Tensor, "worlds seats"]:
        """What all of them do."""
        action = torch.zeros(self._shape, dtype=torch.int64)
        for player, where in self._placed:
            action[where] = player.draw(observation[where], self._source)
        return action


class Episodes:
    """Episodes as the learner has them, who sits in the first seat: the others act by themselves."""

    def __init__(self, grid: Grid, others: Table) -> None:
        self.grid, self._others = grid, others
        self._seen: Float[Tensor, "seats features"] | None = None

    def observation(self) -> Float[Tensor, "episodes features"]:
        """What the learner sees."""
        return self._seated(self._observed())[:, 0]

    def step(self, action: Int64[Tensor, " episodes"]) -> Float32[Tensor, " episodes"]:
        """The learner acts, and all others; returns the learner's reward."""
        if self.grid.universe.players > 1:
            others = self._others.act(self._seated(self._observed())[:, 1:])
            action = torch.cat([action.unsqueeze(1), others], 1).flatten()
        self._seen = None
        return self._seated(self.grid.step(action))[:, 0]

    def _observed(self) -> Float[Tensor, "seats features"]:
        if self._seen is None:
            self._seen = self.grid.observation()
        return self._seen

    def _seated(self, rows: Tensor) -> Tensor:
        return rows.view(len(self.grid.tasks), -1, *rows.shape[1:])


def played(
    task: OpenEndedTask,
    tasks: Tasks,
    players: Sequence[Player],
    seated: Int64[Tensor, "n seats"],
    source: torch.Generator | None,
) -> Float64[Tensor, "n seats"]:
    """Share of the steps with a reward, in every task and seat. seated: who sits there, by number in ``players``."""
    grid, table = Grid(task, tasks), Table(players, seated, source)
    total = torch.zeros(seated.shape, dtype=torch.float64)
    while not grid.done:
        action = table.act(grid.observation().view(*seated.shape, -1))
        total += grid.step(action.flatten()).view(seated.shape)
    return total / task.horizon


class CoPlayers:
    """The pool of those whom the learner meets: a random player, frozen policies, and recent ones.

    Frozen are those of the folder ``task.coplayers`` and whoever is added for good; recent are the last
    ``task.snapshots`` policies remembered: snapshots of the one that learns, and of those that learn beside it. Each
    is as likely to be met in a task for training; in a held-out task only those that stay are, so that evaluations of
    one run compare. Who sits in a seat follows from the number of the task and the names in the pool: the one whose
    name draws the highest number there. So a task keeps its co-players as the pool changes, but for the share of tasks
    that a new one takes over and those of one that is forgotten.

    Raises :class:`InputError` for a folder without policies, or with one that does not fit the universe.
    """

    def __init__(self, task: OpenEndedTask) -> None:
        self._task = task
        self.frozen: dict[str, GoalPolicy] = {}
        self.recent: dict[str, GoalPolicy] = {}
        if task.coplayers is not None:
            for name, policy in read_policies(task.coplayers):
                self.keep(name, policy)

    def names(self, split: Split) -> list[str]:
        """Who may be met, by number."""
        return [RANDOM, *self.frozen, *(self.recent if split == "train" else ())]

    def players(self, split: Split) -> list[Player]:
        """Who may be met, by number."""
        return [RandomPlayer(), *self.frozen.values(), *(self.recent.values() if split == "train" else ())]

    def seated(self, split: Split, numbers: Sequence[int]) -> Int64[Tensor, "tasks others"]:
        """Number of the co-player in every seat but the first."""
        seeds = torch.tensor([derive(number, "coplayers", split) for number in numbers], dtype=torch.int64)
        seats = range(1, self._task.players)
        drawn = [[derive(seat, "coplayer", name) for name in self.names(split)] for seat in seats]
        counters = torch.tensor(drawn, dtype=torch.int64).view(len(seats), len(self.names(split)))
        return uniform(seeds.view(-1, 1, 1), counters).argmax(-1)

    def keep(self, name: str, policy: GoalPolicy) -> None:
        """Add one that stays."""
        needed, shape = Shape.of(self._task), policy.shape
        if (shape.state, shape.option, shape.options) != (needed.state, needed.option, needed.options):
            raise InputError(f"co-player {name}: task {self._task.name} needs a policy with {needed}; it has {shape}")
        self.frozen[name] = policy.frozen()

    def remember(self, name: str, policy: GoalPolicy) -> None:
        """Add one as it is now; the oldest of those remembered are forgotten."""
        self.recent.pop(name, None)
        self.recent[name] = policy.frozen()
        for old in [*self.recent][: -self._task.snapshots]:
            del self.recent[old]

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All weights, and whose they are."""
        kept = {"frozen": self.frozen, "recent": self.recent}
        tensors = {
            f"coplayer.{kind}.{number}.{name}": value
            for kind, policies in kept.items()
            for number, policy in enumerate(policies.values())
            for name, value in policy.state_dict().items()
        }
        shapes = {
            kind: [[name, asdict(policy.shape)] for name, policy in policies.items()] for kind, policies in kept.items()
        }
        return tensors, shapes

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the pool."""
        for kind, policies in (("frozen", self.frozen), ("recent", self.recent)):
            policies.clear()
            for number, (name, shape) in enumerate(plain[kind]):
                start = f"coplayer.{kind}.{number}."
                policy = GoalPolicy(Shape(**shape))
                policy.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
                policies[name] = policy.frozen()


def read_policies(folder: str) -> Iterable[tuple[str, GoalPolicy]]:
    """The policy that a folder is, that a run in it has (``model``, ``policy``), or those of the folders in it.

    Each is named by its folder. Raises :class:`InputError` where there is none.
    """
    path = Path(folder)
    for one in (path, path / "model", path / "policy"):
        if (one / "policy.json").is_file():
            return [(str(path), GoalPolicy.from_directory(one))]
    inner = sorted(one for one in path.glob("*/") if (one / "policy.json").is_file())
    if not inner:
        raise InputError(f"co-players {path}: no saved policy, neither there nor in a folder of it (policy.json)")
    return [(str(one), GoalPolicy.from_directory(one)) for one in inner]
