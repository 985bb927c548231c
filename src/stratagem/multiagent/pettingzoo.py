"""PettingZoo environments: parallel ones as they are, turn-based ones through PettingZoo's own converter."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from gymnasium import spaces
from jaxtyping import Int, Int64, Shaped
from pydantic import TypeAdapter, ValidationError

from stratagem.control.task import DEFAULT_MAX_TURNS, yaml_scalar
from stratagem.errors import InputError, unknown
from stratagem.multiagent.game import Copies, Frame, Outcome
from stratagem.tasks.adapter import episode_seed, require
from stratagem.tasks.task import Split

EXTRA = "multiagent"


def from_spec(argument: str | None, options: Mapping[str, str]) -> PettingZooTask:
    """The task ``pettingzoo:<module>[,max_turns=25][,<argument of the environment>=<YAML value>]``.

    Raises :class:`InputError` for a module that is no environment, and for arguments or spaces that do not fit.
    """
    if argument is None:
        raise InputError("task pettingzoo needs the module of an environment, e.g. pettingzoo:mpe2.simple_spread_v3")
    values = {name: yaml_scalar("pettingzoo", name, text) for name, text in options.items()}
    return PettingZooTask(argument, max_turns=values.pop("max_turns", None), arguments=values)


@dataclass(frozen=True)
class PettingZooTask:
    """An environment of the PettingZoo library, or of any other that follows it.

    Observations: spaces that Gymnasium can flatten, or a dictionary of such an ``observation`` and an ``action_mask``.
    Actions: ``Discrete`` for all agents, or ``Box`` for all, into whose bounds they are clipped. Where agents differ,
    observations are padded with zeros, discrete actions that an agent lacks are not legal, and further dimensions of a
    continuous one are left out. The state is the environment's own, else all observations together. Training episodes
    are reset with even seeds, held-out ones with odd seeds.

    module: in which ``parallel_env`` or ``env`` is, such as ``mpe2.simple_spread_v3``.
    max_turns: after which episodes are truncated, at least 1 (None: 1000, and the environment's own limit).
    arguments: of the environment's constructor.

    Raises :class:`InputError` when there is no such environment or its spaces are of another kind.
    """

    family: ClassVar[str] = "multiagent"
    mortal: ClassVar[bool] = True
    shared_reward: ClassVar[bool] = False

    module: str
    max_turns: Annotated[int, Ge(1)] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    seen: tuple[spaces.Space[Any], ...] = field(init=False, repr=False, compare=False)
    done: tuple[spaces.Space[Any], ...] = field(init=False, repr=False, compare=False)
    state_features: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            TypeAdapter(Annotated[int, Ge(1)] | None).validate_python(self.max_turns, strict=True)
        except ValidationError:
            raise InputError(f"task {self.name}: max_turns must be an integer of at least 1") from None
        environment = self.make()
        names = tuple(environment.possible_agents)
        found = {
            "names": names,
            "seen": tuple(environment.observation_space(name) for name in names),
            "done": tuple(environment.action_space(name) for name in names),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        self._check_spaces()
        try:
            environment.reset(seed=0)
            size = self.features * len(names) if (own := _state(environment)) is None else own.size
        finally:
            environment.close()
        object.__setattr__(self, "state_features", size)

    def _check_spaces(self) -> None:
        kinds = sorted({type(space).__name__ for space in self.done})
        if kinds not in (["Discrete"], ["Box"]):
            raise InputError(
                f"task {self.name}: actions are {' and '.join(kinds)}; supported are Discrete for all agents, or Box "
                "for all"
            )
        for agent, space in zip(self.names, self.seen, strict=True):
            if not _observed(space).is_np_flattenable:
                raise InputError(
                    f"task {self.name}: {agent} observes {space}; supported are spaces that can be flattened"
                )

    @property
    def name(self) -> str:
        """How the command line calls it."""
        options = {**({} if self.max_turns is None else {"max_turns": self.max_turns}), **self.arguments}
        return ",".join([f"pettingzoo:{self.module}", *(f"{name}={value}" for name, value in options.items())])

    @property
    def description(self) -> str:
        """One line."""
        return f"PettingZoo: {self.module}"

    @property
    def agents(self) -> int:
        """How many there may be."""
        return len(self.names)

    @property
    def features(self) -> int:
        """Numbers in the longest observation."""
        return max(spaces.flatdim(_observed(space)) for space in self.seen)

    @property
    def choices(self) -> tuple[int, ...]:
        """Of every agent, its discrete actions or the dimensions of its continuous one."""
        return tuple(int(s.n) if isinstance(s, spaces.Discrete) else spaces.flatdim(s) for s in self.done)

    @property
    def actions(self) -> int:
        """Of the agent that has most."""
        return max(self.choices)

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors."""
        return isinstance(self.done[0], spaces.Box)

    def make(self) -> Any:
        """A fresh parallel environment. Raises :class:`InputError` when it cannot be made."""
        library = require("pettingzoo.utils.conversions", EXTRA)
        made = _found(self.module)
        try:
            if hasattr(made, "parallel_env"):
                return made.parallel_env(**self.arguments)
            return library.aec_to_parallel(made.env(**self.arguments))
        except Exception as error:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"task {self.name}: the environment cannot be made: {problem[0]}") from None

    def copies(self, count: int) -> Copies:
        """So many environments, made when they are first reset."""
        return EnvironmentCopies(self, count)

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode: even for training, odd for held-out ones."""
        return episode_seed(split, number)


class EnvironmentCopies:
    """Environments that are objects of their own, each stepped in turn.

    An environment that raises is given up, and its episode has failed. Episodes are told by their seed and the actions
    taken since, and restored by taking them again, which is exact for environments that depend on nothing else.
    """

    def __init__(self, task: PettingZooTask, count: int) -> None:
        self._task, self._limit = task, DEFAULT_MAX_TURNS if task.max_turns is None else task.max_turns
        self._environments: list[Any] = [None] * count
        self._seeds = np.zeros(count, dtype=np.int64)
        self._taken: list[list[np.ndarray]] = [[] for _ in range(count)]
        shapes = {"observation": (task.agents, task.features), "state": (task.state_features,)}
        self._seen = {name: np.zeros((count, *shape), dtype=np.float32) for name, shape in shapes.items()}
        choices = np.arange(0 if task.continuous else task.actions) < np.array(task.choices)[:, None]
        self._choices = choices
        self._legal = np.repeat(choices[None], count, 0)
        self._alive = np.zeros((count, task.agents), dtype=bool)

    def reset(self, copies: Int[np.ndarray, " some"], seeds: Int64[np.ndarray, " some"]) -> dict[int, str]:
        failures = {}
        for row, (copy, seed) in enumerate(zip(copies.tolist(), seeds.tolist(), strict=True)):
            self._seeds[copy], self._taken[copy] = seed, []
            try:
                if self._environments[copy] is None:
                    self._environments[copy] = self._task.make()
                # Seeds of 31 bits are what every environment takes.
                observations, _ = self._environments[copy].reset(seed=seed % 2**31)
                self._look(copy, observations)
            except Exception as error:
                failures[row] = self._given_up(copy, error)
        return failures

    def observe(self, copies: Int[np.ndarray, " some"]) -> Frame:
        seen = self._seen
        return Frame(seen["observation"][copies], seen["state"][copies], self._legal[copies], self._alive[copies])

    def step(self, copies: Int[np.ndarray, " some"], action: Shaped[np.ndarray, "some agents ..."]) -> Outcome:
        shape = (len(copies), self._task.agents)
        reward = np.zeros(shape, dtype=np.float32)
        terminated, truncated = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        failures = {}
        for row, copy in enumerate(copies.tolist()):
            try:
                reward[row], terminated[row], truncated[row] = self._step(copy, action[row])
            except Exception as error:
                failures[row] = self._given_up(copy, error)
        return Outcome(reward, terminated, truncated, self.observe(copies), failures)

    def _step(self, copy: int, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        task, environment = self._task, self._environments[copy]
        acting = {n: task.names.index(n) for n in environment.agents}
        commands = {name: self._command(place, action[place]) for name, place in acting.items()}
        observations, rewards, terminations, truncations, _ = environment.step(commands)
        self._taken[copy].append(np.array(action))
        told = [
            [told.get(name, nothing) for name in task.names]
            for told, nothing in ((rewards, 0.0), (terminations, False), (truncations, False))
        ]
        reward, terminated, truncated = (
            np.array(told[0], dtype=np.float32),
            *(np.array(flags, dtype=bool) for flags in told[1:]),
        )
        remaining = np.isin(task.names, environment.agents)
        # Whoever is gone without a word has come to an end of its own.
        before = self._alive[copy].copy()
        terminated |= before & ~remaining & ~truncated
        self._look(copy, observations)
        if len(self._taken[copy]) >= self._limit:
            truncated |= self._alive[copy] & ~terminated
        return reward, terminated, truncated

    def _command(self, place: int, action: np.ndarray) -> Any:
        space = self._task.done[place]
        if isinstance(space, spaces.Discrete):
            return int(action) + int(space.start)
        assert isinstance(space, spaces.Box)
        own = action[: self._task.choices[place]].reshape(space.shape)
        return np.clip(own, space.low, space.high).astype(space.dtype)

    def _look(self, copy: int, observations: Mapping[str, Any]) -> None:
        """Note what there is to see."""
        task, environment = self._task, self._environments[copy]
        seen = self._seen["observation"][copy]
        seen[:] = 0
        self._legal[copy] = self._choices
        for place, name in enumerate(task.names):
            if name not in observations:
                continue
            space, observation = task.seen[place], observations[name]
            if isinstance(space, spaces.Dict) and "action_mask" in space.spaces:
                self._mask(copy, place, observation["action_mask"], name in environment.agents)
                observation = observation["observation"]
            flat = spaces.flatten(_observed(space), observation)
            seen[place, : len(flat)] = flat
        self._alive[copy] = np.isin(task.names, environment.agents)
        own = _state(environment)
        self._seen["state"][copy] = seen.reshape(-1) if own is None else own

    def _mask(self, copy: int, place: int, mask: Any, acts: bool) -> None:
        legal = np.zeros(self._task.actions, dtype=bool)
        legal[: self._task.choices[place]] = np.asarray(mask, dtype=bool)
        if acts and not legal.any():
            raise ValueError(f"{self._task.names[place]} has no legal action")
        if legal.any():
            self._legal[copy, place] = legal

    def _given_up(self, copy: int, error: Exception) -> str:
        if self._environments[copy] is not None:
            with contextlib.suppress(Exception):
                self._environments[copy].close()
        self._environments[copy] = None
        self._alive[copy] = False
        return f"{type(error).__name__}: {error}"

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        taken = [action for actions in self._taken for action in actions]
        counts = np.array([len(actions) for actions in self._taken])
        actions = {"actions": np.stack(taken)} if taken else {}
        began = np.array([environment is not None for environment in self._environments])
        return {"seeds": self._seeds.copy(), "counts": counts, "began": began, **actions}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        taken = iter(state["actions"]) if "actions" in state else iter(())
        for copy, (seed, count) in enumerate(zip(state["seeds"].tolist(), state["counts"].tolist(), strict=True)):
            if state["began"][copy]:
                self.reset(np.array([copy]), np.array([seed], dtype=np.int64))
            for _ in range(count):
                self._step(copy, next(taken))

    def close(self) -> None:
        for copy, environment in enumerate(self._environments):
            if environment is not None:
                with contextlib.suppress(Exception):
                    environment.close()
            self._environments[copy] = None


def _found(module: str) -> Any:
    """The module of an environment. Raises :class:`InputError` naming the nearest one of its package."""
    package = module.rpartition(".")[0]
    root = module.partition(".")[0]
    try:
        importlib.import_module(root)
    except ImportError as error:
        known = root in ("pettingzoo", "mpe2")
        remedy = f"pip install 'stratagem[{EXTRA}]'" if known else f"install {error.name or root}"
        raise InputError(f"task pettingzoo:{module}: {root} cannot be imported ({error}); {remedy}") from None
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise InputError(f"task pettingzoo:{module}: cannot be imported ({error}); install {error.name}") from None
        raise unknown("PettingZoo environment", module, _modules(package or root)) from None
    except Exception as error:
        raise InputError(f"task pettingzoo:{module}: cannot be imported ({error})") from None
    if not hasattr(found, "parallel_env") and not hasattr(found, "env"):
        raise unknown("PettingZoo environment", module, _modules(module))
    return found


def _modules(package: str) -> list[str]:
    """Modules of a package that look like environments, which have a version in their name."""
    try:
        path = importlib.import_module(package).__path__
    except (ImportError, AttributeError):
        return []
    names = (found.name for found in pkgutil.iter_modules(path))
    return [f"{package}.{name}" for name in names if name.rpartition("_v")[2].isdigit()]


def _observed(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """What of an observation is no action mask."""
    if isinstance(space, spaces.Dict) and "action_mask" in space.spaces:
        return space["observation"]
    return space


def _state(environment: Any) -> np.ndarray | None:
    """The environment's own state as a flat vector; None where it has none."""
    try:
        return np.asarray(environment.state(), dtype=np.float32).reshape(-1)
    except (NotImplementedError, AttributeError):
        return None
