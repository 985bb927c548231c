"""Any Gymnasium environment whose observations and actions are text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError, unknown
from stratagem.tasks.adapter import episode_seed, require
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key


def from_spec(argument: str | None, options: Mapping[str, str]) -> TextGymnasiumTask:
    """The task ``textgym:<id>[,success=1,max_turns=32,max_new_tokens=64]``."""
    if argument is None:
        raise InputError("task textgym needs the id of a registered Gymnasium environment, e.g. textgym:MyText-v0")
    check_names("textgym", options, ["success", "max_turns", "max_new_tokens"])
    return TextGymnasiumTask(argument, **options)  # type: ignore[arg-type]  # validated and converted on construction


@dataclass(frozen=True)
class TextGymnasiumTask(Task):
    """A registered Gymnasium environment with ``Text`` observation and action spaces.

    The action is the policy's text without surrounding white space; text outside the action space is not given to the
    environment, which stays as it is, with reward 0. Rewards are the environment's. Success: what the environment
    reports as ``info["is_success"]`` or ``info["success"]``, else a return of at least ``success`` when it terminates.
    Training episodes are reset with even seeds and test episodes with odd ones. There is no solver.

    ``id``: as registered, with ``module:`` before it when a module has to be imported first.
    """

    id: str
    success: float = 1.0
    max_turns: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 64

    name = "textgym"
    description = "a Gymnasium environment whose observations and actions are text"

    def __post_init__(self) -> None:
        validate(self)
        gymnasium = require("gymnasium", "environments")
        if ":" not in self.id and self.id not in gymnasium.registry:
            raise unknown("Gymnasium environment", self.id, gymnasium.registry)
        environment = self._make()
        spaces = {"observations": environment.observation_space, "actions": environment.action_space}
        environment.close()
        for what, space in spaces.items():
            if not isinstance(space, gymnasium.spaces.Text):
                raise InputError(f"Gymnasium environment {self.id!r} has {space} {what}; textgym needs a Text space")
        object.__setattr__(self, "name", f"textgym:{self.id}")

    def environment(self, split: Split, index: int) -> Environment:
        """A new environment, reset with this episode's seed."""
        return _Episode(self._make(), episode_seed(split, index), self.success)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: Gymnasium environments bring no solver."""
        raise NotImplementedError(f"{self.name} brings no solver")

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: without a solution there is none to corrupt."""
        raise NotImplementedError(f"{self.name} brings no solver")

    def _make(self) -> Any:
        gymnasium = require("gymnasium", "environments")
        try:
            return gymnasium.make(self.id)
        except (gymnasium.error.Error, ImportError) as failure:
            raise InputError(f"Gymnasium environment {self.id!r} cannot be made: {failure}") from failure


class _Episode(Environment):
    def __init__(self, environment: Any, seed: int, success: float) -> None:
        self._environment = environment
        self._seed = seed
        self._success = success
        self._return = 0.0
        self._last = _observation("")

    def reset(self) -> Observation:
        text, _ = self._environment.reset(seed=self._seed)
        self._return = 0.0
        self._last = _observation(text)
        return self._last

    def step(self, action: str) -> Step:
        action = action.strip()
        if not self._environment.action_space.contains(action):
            return Step(self._last)
        text, reward, terminated, truncated, info = self._environment.step(action)
        self._return += float(reward)
        self._last = _observation(text)
        reported = info.get("is_success", info.get("success"))
        success = terminated and self._return >= self._success if reported is None else bool(reported)
        return Step(self._last, float(reward), bool(terminated or truncated), bool(truncated), success)

    def close(self) -> None:
        self._environment.close()


def _observation(text: str) -> Observation:
    return Observation(str(text), state_key(str(text)))
