"""POGEMA's lifelong pathfinding: its maps, goals and collisions, with the plans and the pay of a follower."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Int, Int64

from stratagem.errors import InputError
from stratagem.multiagent.game import Copies, Frame, Outcome, State
from stratagem.multiagent.games import configured, named
from stratagem.multiagent.pathfinding import Followed, grid_sketch
from stratagem.multiagent.sketch import Sketch
from stratagem.tasks.adapter import episode_seed
from stratagem.tasks.options import validate
from stratagem.tasks.task import Split


@dataclass(frozen=True)
class PogemaTask(Followed):
    """The same game as :class:`~stratagem.multiagent.PathfindingGame`, played by the POGEMA library.

    Its generator draws maps, starts and goals, also on parts of a map that are cut off, and its ``soft`` collisions
    move agents. Options are those of :class:`~stratagem.multiagent.PathfindingGame`. POGEMA asks for versions of
    gymnasium, numpy and pydantic that this package cannot have; it works all the same when it is installed without them
    (``pip install --no-deps pogema``), since pydantic still holds its first version, as ``pydantic.v1``.

    Raises :class:`InputError` when POGEMA cannot be imported or refuses the options.
    """

    family: ClassVar[str] = "multiagent"
    actions: ClassVar[int] = 5
    continuous: ClassVar[bool] = False
    shared_reward: ClassVar[bool] = False
    mortal: ClassVar[bool] = False

    size: Annotated[int, Ge(3), Le(512)] = 12
    density: Annotated[float, Ge(0), Le(0.6)] = 0.2
    agents: Annotated[int, Ge(1), Le(256)] = 16
    sight: Annotated[int, Ge(1), Le(16)] = 5
    view: Annotated[int, Ge(1), Le(16)] = 3
    static: bool = True
    dynamic: bool = True
    pay: Literal["waypoint", "goal"] = "waypoint"
    max_turns: Annotated[int, Gt(0), Le(10_000)] = 256

    def __post_init__(self) -> None:
        validate(self)
        if self.view > self.sight:
            raise InputError(f"task {self.name}: view = {self.view}: must be at most sight = {self.sight}")
        self.make(0)

    @property
    def name(self) -> str:
        """How the command line calls it."""
        options = ("size", "density", "agents", "sight", "view", "static", "dynamic", "pay", "max_turns")
        return named("pogema", self, options)

    @property
    def description(self) -> str:
        """One line."""
        return "lifelong pathfinding in POGEMA"

    def make(self, seed: int) -> Any:
        """An episode of POGEMA's own, begun. Raises :class:`InputError` when there cannot be one."""
        pogema = library()
        try:
            config = pogema.grid_config.GridConfig(
                on_target="restart",
                seed=seed % 2**31,
                size=self.size,
                density=self.density,
                num_agents=self.agents,
                obs_radius=self.sight,
                collision_system="soft",
                max_episode_steps=self.max_turns,
            )
            environment = pogema.envs.PogemaLifeLong(config)
            environment.reset()
        except Exception as error:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"task {self.name}: POGEMA cannot make it: {problem[0]}") from None
        return environment

    def copies(self, count: int) -> Copies:
        """So many environments, made when they are first reset."""
        return PogemaCopies(self, count)

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode: even for training, odd for held-out ones."""
        return episode_seed(split, number)


class PogemaCopies:
    """Environments of POGEMA, each stepped in turn, whose agents plan all at once.

    Episodes are told by their seed and the moves made since, and restored by making them again.
    """

    def __init__(self, task: PogemaTask, count: int) -> None:
        self._task = task
        self._environments: list[Any] = [None] * count
        self._seeds = np.zeros(count, dtype=np.int64)
        self._taken: list[list[np.ndarray]] = [[] for _ in range(count)]
        self._state: State = {}

    def reset(self, copies: Int[np.ndarray, " some"], seeds: Int64[np.ndarray, " some"]) -> dict[int, str]:
        for copy, seed in zip(copies.tolist(), np.asarray(seeds).tolist(), strict=True):
            self._environments[copy] = self._task.make(seed)
            self._seeds[copy], self._taken[copy] = seed, []
        made = [self._environments[copy] for copy in copies.tolist()]
        wall = np.stack([np.asarray(one.get_obstacles(ignore_borders=True)) > 0 for one in made])
        fresh = self._task.follower.begin(wall, *self._places(copies))
        if not self._state:
            count = len(self._environments)
            self._state = {name: np.zeros((count, *rows.shape[1:]), rows.dtype) for name, rows in fresh.items()}
        self._write(copies, fresh)
        return {}

    def observe(self, copies: Int[np.ndarray, " some"]) -> Frame:
        return self._frame(self._read(copies))

    def step(self, copies: Int[np.ndarray, " some"], action: Int64[np.ndarray, "some agents"]) -> Outcome:
        task, before = self._task, self._read(copies)
        earned = np.zeros(action.shape)
        for row, copy in enumerate(copies.tolist()):
            earned[row] = self._environments[copy].step(action[row].tolist())[1]
            self._taken[copy].append(action[row].copy())
        cell, goal = self._places(copies)
        # On a goal an agent gets the next one at once, so where it is now is where it moved to.
        reward = earned if task.pay == "goal" else task.follower.paid(before, cell)
        after = task.follower.planned(before, cell, goal, before["goal"])
        self._write(copies, after)
        over = np.array([len(self._taken[copy]) >= task.max_turns for copy in copies.tolist()])
        ended = np.broadcast_to(over[:, None], action.shape)
        return Outcome(reward.astype(np.float32), np.zeros(action.shape, dtype=bool), ended, self._frame(after))

    def sketch(self, copy: int) -> Sketch:
        """What this copy looks like now."""
        return grid_sketch(*(self._state[name][copy] for name in ("wall", "cell", "goal")))

    def state_dict(self) -> dict[str, np.ndarray]:
        taken = [action for actions in self._taken for action in actions]
        began = np.array([environment is not None for environment in self._environments])
        counts = np.array([len(actions) for actions in self._taken])
        return {"seeds": self._seeds.copy(), "counts": counts, "began": began} | (
            {"actions": np.stack(taken)} if taken else {}
        )

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        taken = iter(state["actions"]) if "actions" in state else iter(())
        for copy, (seed, count) in enumerate(zip(state["seeds"].tolist(), state["counts"].tolist(), strict=True)):
            if state["began"][copy]:
                self.reset(np.array([copy]), np.array([seed], dtype=np.int64))
            for _ in range(count):
                self.step(np.array([copy]), next(taken)[None])

    def close(self) -> None:
        self._environments = [None] * len(self._environments)
        self._state = {}

    def _places(self, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells and goals of all agents."""
        made = [self._environments[copy] for copy in copies.tolist()]
        cell, goal = (
            np.array([getattr(one, asked)(ignore_borders=True) for one in made], dtype=np.int64)
            for asked in ("get_agents_xy", "get_targets_xy")
        )
        width = self._task.size
        return cell[..., 0] * width + cell[..., 1], goal[..., 0] * width + goal[..., 1]

    def _frame(self, state: State) -> Frame:
        task = self._task
        shape = state["cell"].shape
        numbers = np.stack([state["cell"], state["goal"]], -1)
        whole = np.stack([numbers // task.size, numbers % task.size], -1).reshape(len(numbers), -1) / task.size
        seen = task.follower.observe(state).astype(np.float32)
        legal = np.ones((*shape, task.actions), dtype=bool)
        return Frame(seen, whole.astype(np.float32), legal, np.ones(shape, dtype=bool))

    def _read(self, copies: np.ndarray) -> State:
        return {name: rows[copies] for name, rows in self._state.items()}

    def _write(self, copies: np.ndarray, state: State) -> None:
        for name, rows in self._state.items():
            rows[copies] = state[name]


def library() -> Any:
    """POGEMA. Where it was written for pydantic's first version it gets that. Raises :class:`InputError` without it."""
    try:
        importlib.import_module("pogema")
    except ModuleNotFoundError as error:
        if error.name != "pogema":
            raise InputError(f"task pogema: pogema cannot be imported ({error})") from None
        raise InputError(
            "task pogema: pogema is not installed; pip install --no-deps pogema (its pins do not fit this package's; "
            "the task pathfinding is the same game without it)"
        ) from None
    except Exception:
        _import_with_first_pydantic("pogema")
    for part in ("envs", "grid_config"):
        importlib.import_module(f"pogema.{part}")
    return sys.modules["pogema"]


def _import_with_first_pydantic(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]
    present = importlib.import_module("pydantic")
    try:
        sys.modules["pydantic"] = importlib.import_module("pydantic.v1")
        importlib.import_module(package)
    except Exception as error:
        raise InputError(f"task {package}: {package} cannot be imported ({error})") from None
    finally:
        sys.modules["pydantic"] = present


def from_spec(argument: str | None, options: Mapping[str, Any]) -> PogemaTask:
    """The task ``pogema[:size=12,agents=16,...]``. Raises :class:`InputError` for a wrong option or without POGEMA."""
    return configured("pogema", PogemaTask, argument, options)
