"""Control tasks: any Gymnasium environment with vector observations and discrete or continuous actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import gymnasium
import numpy as np
import yaml
from annotated_types import Ge
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from jaxtyping import Shaped
from pydantic import TypeAdapter, ValidationError

from stratagem.errors import InputError, unknown
from stratagem.tasks.adapter import episode_seed
from stratagem.tasks.task import Split

DEFAULT_MAX_TURNS = 1000
"""Turns after which an episode is truncated when neither the task nor the environment's registration has a limit."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> GymTask:
    """The task ``gym:<id>[,max_turns=500][,<argument of the environment>=<YAML value>]``.

    Raises :class:`InputError` for an id that is not registered, with the nearest one that is, and for arguments or
    spaces that do not fit.
    """
    if argument is None:
        raise InputError("task gym needs the id of a registered Gymnasium environment, e.g. gym:CartPole-v1")
    values = {name: yaml_scalar("gym", name, text) for name, text in options.items()}
    return GymTask(argument, max_turns=values.pop("max_turns", None), arguments=values)


@dataclass(frozen=True)
class GymTask:
    """A registered Gymnasium environment.

    Observations: ``Box`` of any shape, read as one flat float32 vector, or a space that Gymnasium can flatten
    (``Discrete`` becomes one-hot). Actions: ``Discrete``, or ``Box``, into whose bounds an action is clipped on its way
    to the environment.
    Rewards are the environment's. Training episodes are reset with even seeds, held-out ones with odd seeds, so that
    none is both; the held-out ones are the same in every run.

    id: as registered, with ``module:`` before it when a module has to be imported first.
    max_turns: episodes are truncated after so many, at least 1 (None: the registered limit, else 1000).
    arguments: of the environment's constructor.

    Raises :class:`InputError` when there is no such environment or its spaces are of another kind.
    """

    family: ClassVar[str] = "control"

    id: str
    max_turns: Annotated[int, Ge(1)] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    observation_space: spaces.Space[Any] = field(init=False, repr=False, compare=False)
    action_space: spaces.Space[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            TypeAdapter(Annotated[int, Ge(1)] | None).validate_python(self.max_turns, strict=True)
        except ValidationError:
            raise InputError(f"task {self.name}: max_turns must be an integer of at least 1") from None
        environment = self.make()
        object.__setattr__(self, "observation_space", environment.observation_space)
        object.__setattr__(self, "action_space", environment.action_space)
        environment.close()
        if not isinstance(self.action_space, spaces.Discrete | spaces.Box):
            raise InputError(f"task {self.name}: actions are {self.action_space}; supported are Discrete and Box")

    @property
    def name(self) -> str:
        """How the command line calls it."""
        options = {**({} if self.max_turns is None else {"max_turns": self.max_turns}), **self.arguments}
        return ",".join([f"gym:{self.id}", *(f"{name}={value}" for name, value in options.items())])

    @property
    def description(self) -> str:
        """One line."""
        return f"Gymnasium control: {self.id}"

    @property
    def features(self) -> int:
        """Numbers in an observation."""
        return spaces.flatdim(self.observation_space)

    @property
    def actions(self) -> int:
        """Choices of a discrete action; dimensions of a continuous one."""
        discrete = isinstance(self.action_space, spaces.Discrete)
        return int(self.action_space.n) if discrete else spaces.flatdim(self.action_space)  # type: ignore[attr-defined]

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors."""
        return isinstance(self.action_space, spaces.Box)

    def make(self) -> gymnasium.Env[Any, Any]:
        """A fresh environment with array observations. Raises :class:`InputError` when it cannot be made."""
        if ":" not in self.id and self.id not in gymnasium.registry:
            raise unknown("Gymnasium environment", self.id, gymnasium.registry)
        try:
            environment = gymnasium.make(
                self.id, max_episode_steps=self._limit(), disable_env_checker=True, **self.arguments
            )
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"task {self.name}: the environment cannot be made: {problem[0]}") from None
        if isinstance(environment.observation_space, spaces.Box):
            return environment
        space = environment.observation_space
        if not space.is_np_flattenable:
            raise InputError(f"task {self.name}: observations are {space}; supported are spaces that can be flattened")
        return FlattenObservation(environment)

    def commands(self, action: Shaped[np.ndarray, "rows ..."]) -> list[Any]:
        """The policy's actions as the environment takes them: continuous ones within its bounds."""
        space = self.action_space
        if isinstance(space, spaces.Discrete):
            return list(action + int(space.start))
        assert isinstance(space, spaces.Box)
        return list(np.clip(action.reshape(-1, *space.shape), space.low, space.high).astype(space.dtype))

    def start_seed(self, split: Split, number: int) -> int:
        """The seed of an episode: even for training, odd for held-out ones."""
        return episode_seed(split, number)

    def _limit(self) -> int | None:
        registered = gymnasium.registry.get(self.id)
        if self.max_turns is None and registered is not None and registered.max_episode_steps is None:
            return DEFAULT_MAX_TURNS
        return self.max_turns


def yaml_scalar(task: str, name: str, text: str) -> Any:
    """The value of a task's option. Raises :class:`InputError` when it is none that YAML knows."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"task {task}: {name}={text!r} is not a YAML value") from None
