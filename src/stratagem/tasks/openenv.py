"""OpenEnv environments: behind a server (WebSocket) or in this process, one text field in and text out."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.adapter import episode_seed, require
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_OPTIONS = ["action", "observation", "success", "max_turns", "max_new_tokens", "timeout"]
_STANDARD = ("done", "reward", "metadata")


def from_spec(argument: str | None, options: Mapping[str, str]) -> OpenEnvTask:
    """The task ``openenv:<http address>[,action=FIELD,observation=FIELD,success=1,max_turns=32,timeout=60]``.

    ``action`` and ``observation`` name text fields of the environment's schema and may be left out where it has one.
    ``timeout``: seconds to wait for an answer of the server. Raises ``InputError`` when no server answers.
    """
    if argument is None or not argument.startswith(("http://", "https://")):
        raise InputError(f"task openenv needs the http address of a server, got {argument!r}")
    check_names("openenv", options, _OPTIONS)
    rest = dict(options)
    timeout = _seconds(rest.pop("timeout", "60"))
    schema = _schema(argument, timeout)
    for side in ("action", "observation"):
        rest[side] = _text_field(side, schema[side], rest.get(side))
    return OpenEnvTask(lambda: _remote(argument, timeout), **rest)  # type: ignore[arg-type]  # validated on construction


class Client(Protocol):
    """What the task needs of an OpenEnv client: results have ``observation`` (a mapping), ``reward`` and ``done``."""

    def reset(self, *, seed: int) -> Any: ...

    def step(self, action: dict[str, Any]) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class OpenEnvTask(Task):
    """Episodes of an OpenEnv environment.

    Rewards are the environment's (none counts as 0). Success: it is done with a return of at least ``success``. The
    environment is reset with even seeds for training and odd seeds for testing; one that ignores its seed has the same
    episodes in both. There is no solver.

    ``connect``: makes a client, one per episode. ``action``: the action's field that receives the policy's text.
    ``observation``: the observation's field that the policy reads, or ``None`` for all of it as JSON.
    """

    connect: Callable[[], Client]
    action: str = "message"
    observation: str | None = None
    success: float = 1.0
    max_turns: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 64

    name = "openenv"
    description = "an OpenEnv environment"

    def __post_init__(self) -> None:
        validate(self)

    @classmethod
    def in_process(cls, environment: Callable[[], Any], action_type: Callable[..., Any], **fields: Any) -> OpenEnvTask:
        """The task of an ``openenv.core`` ``Environment`` in this process, whose actions are ``action_type``'s."""
        return cls(lambda: _Local(environment(), action_type), **fields)

    def environment(self, split: Split, index: int) -> Environment:
        """A new session."""
        return _Session(self, episode_seed(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: OpenEnv environments bring no solver."""
        raise NotImplementedError(f"{self.name} brings no solver")

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: without a solution there is none to corrupt."""
        raise NotImplementedError(f"{self.name} brings no solver")


class _Session(Environment):
    def __init__(self, task: OpenEnvTask, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._client = task.connect()
        self._return = 0.0

    def reset(self) -> Observation:
        self._return = 0.0
        return self._observe(self._client.reset(seed=self._seed))

    def step(self, action: str) -> Step:
        result = self._client.step({self._task.action: action})
        reward = float(result.reward or 0.0)
        self._return += reward
        done = bool(result.done)
        return Step(self._observe(result), reward, done, success=done and self._return >= self._task.success)

    def close(self) -> None:
        self._client.close()

    def _observe(self, result: Any) -> Observation:
        seen, field = result.observation, self._task.observation
        if field is not None and field not in seen:
            raise InputError(f"task openenv: observation has no field {field!r}; it has {', '.join(sorted(seen))}")
        text = json.dumps(seen, sort_keys=True, default=str) if field is None else str(seen[field])
        return Observation(text, state_key(text))


@dataclass(frozen=True)
class _Result:
    observation: dict[str, Any]
    reward: float | None
    done: bool


class _Local:
    """The client of an environment in this process."""

    def __init__(self, environment: Any, action_type: Callable[..., Any]) -> None:
        self._environment = environment
        self._action_type = action_type

    def reset(self, *, seed: int) -> _Result:
        return self._result(self._environment.reset(seed=seed))

    def step(self, action: dict[str, Any]) -> _Result:
        return self._result(self._environment.step(self._action_type(**action)))

    def close(self) -> None:
        self._environment.close()

    @staticmethod
    def _result(observation: Any) -> _Result:
        return _Result(observation.model_dump(exclude=set(_STANDARD)), observation.reward, observation.done)


def _remote(address: str, timeout: float) -> Any:
    client = require("openenv.core", "environments").GenericEnvClient(
        base_url=address, connect_timeout_s=timeout, message_timeout_s=timeout
    )
    return client.sync()


def _schema(address: str, timeout: float) -> dict[str, Any]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{address.rstrip('/')}/schema", timeout=timeout) as reply:
            schema: dict[str, Any] = json.load(reply)
            return schema
    except (OSError, ValueError) as failure:
        raise InputError(f"task openenv: no OpenEnv server answers at {address}: {failure}") from failure


def _text_field(side: str, schema: dict[str, Any], wanted: str | None) -> str:
    """The field ``wanted``, or the only text field there is."""
    properties = {name: kind for name, kind in schema.get("properties", {}).items() if name not in _STANDARD}
    texts = sorted(name for name, kind in properties.items() if kind.get("type") == "string")
    if wanted in properties:
        return str(wanted)
    if wanted is None and len(texts) == 1:
        return str(texts[0])
    problem = "must be named" if wanted is None else f"{wanted!r} does not exist"
    raise InputError(f"task openenv: the {side} field {problem}; text fields: {', '.join(texts) or 'none'}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"task openenv: timeout={text!r} is not allowed; it is a number of seconds above 0")
    return seconds
