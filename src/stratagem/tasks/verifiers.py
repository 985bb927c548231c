"""Environments of Prime Intellect's ``verifiers`` (its version 1 interface), played in this process by our policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stratagem.errors import InputError
from stratagem.tasks.adapter import require
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.splits import split_of
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_OWN = ("success", "max_turns", "max_new_tokens", "env")


def from_spec(argument: str | None, options: Mapping[str, str]) -> VerifiersTask:
    """The task ``verifiers:<taskset>[,env=ID,success=1,max_turns=32,max_new_tokens=128,<field of the taskset>=...]``.

    ``env`` pairs the taskset with another environment, as verifiers' own ``--env.id`` does. Values of the taskset's
    fields are read as JSON where they are JSON. Raises ``InputError`` where verifiers refuses them.
    """
    if argument is None:
        raise InputError("task verifiers needs the id of an installed taskset, e.g. verifiers:gsm8k")
    library = _verifiers()
    try:
        fields = set(library.taskset_config_type(argument).model_fields) - {"id"}
        check_names(f"verifiers:{argument}", options, sorted({*_OWN, *fields}))
        taskset = {name: _value(text) for name, text in options.items() if name not in _OWN}
        config = library.resolve_env_config({"id": options.get("env", ""), "taskset": {"id": argument, **taskset}})
        environment = library.load_environment(config)
    except ValidationError as refusal:
        wrong = refusal.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise InputError(f"task verifiers:{argument}: {where}: {wrong['msg']}, got {wrong['input']!r}") from refusal
    except (ImportError, AttributeError, TypeError, ValueError) as refusal:
        raise InputError(f"task verifiers:{argument}: {' '.join(str(refusal).split())}") from refusal
    own = {name: text for name, text in options.items() if name in _OWN and name != "env"}
    return VerifiersTask(environment, **own)  # type: ignore[arg-type]  # validated and converted on construction


@dataclass(frozen=True, eq=False)
class VerifiersTask(Task):
    """The tasks of a ``verifiers.v1`` environment, single-turn or multi-turn.

    The environment's own ``run`` drives the episode and the policy answers for every seat; a seat's number is the
    ``role`` of its turns. The first text of a seat is its system prompt and prompt. Reward, at the end: the weighted
    rewards of all traces that train, summed; each reward function of the task is a component under its name. Success:
    a reward of at least ``success``. One task in five, by a hash of its data, is a test task; a finite taskset is
    walked through again and again. There is no solver.

    Not run here, and refused with an ``InputError``: tasks that need a container or tools, and ``@stop`` or
    ``@intercept`` hooks. Rewards that ask for a runtime are skipped, as verifiers does without one.
    """

    source: Any
    success: float = 1.0
    max_turns: Annotated[int, Field(ge=1)] = 32
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    tasks: _Splits = field(init=False, repr=False)

    name = "verifiers"
    description = "an environment of the verifiers library"

    def __post_init__(self) -> None:
        validate(self)
        tasks = _Splits(self.source.taskset)
        first = tasks.get("train", 0)
        _refuse(first, self.source.taskset)
        rewards = [hook.__name__ for hook in first.hooks("reward")]
        judges = [judge.reward_name for judge in first.plugged_judges()]
        object.__setattr__(self, "tasks", tasks)
        names = ("reward", *rewards, *judges)
        object.__setattr__(self, "reward_names", names)
        # The reward is the weighted sum of the others, which therefore are noted and not paid once more.
        object.__setattr__(self, "reward_weights", (1.0, *[0.0] * (len(names) - 1)))
        object.__setattr__(self, "name", f"verifiers:{self.source.config.env_id}")

    def environment(self, split: Split, index: int) -> Environment:
        """An episode of the task with this number."""
        return _Episode(self, self.tasks.get(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: verifiers' environments bring no solver."""
        raise NotImplementedError(f"{self.name} brings no solver")

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """Raises ``NotImplementedError``: without a solution there is none to corrupt."""
        raise NotImplementedError(f"{self.name} brings no solver")


class _Splits:
    """A taskset read once, as far as needed, and dealt into the two splits."""

    def __init__(self, taskset: Any) -> None:
        self._id = taskset.config.id
        self._stream = iter(taskset)
        self._read: dict[Split, list[Any]] = {"train": [], "test": []}

    def get(self, split: Split, index: int) -> Any:
        known = self._read[split]
        while len(known) <= index and (task := next(self._stream, None)) is not None:
            data = task.data.model_dump(mode="json", exclude={"idx"})
            self._read[split_of(state_key(json.dumps(data, sort_keys=True)))].append(task)
        if not known:
            raise InputError(f"task verifiers:{self._id} has no {split} task; it is too small to be split")
        return known[index % len(known)]


class _Episode(Environment):
    """Runs the environment's coroutine between the policy's turns, on an event loop of its own."""

    def __init__(self, task: VerifiersTask, item: Any) -> None:
        self._task = task
        self._item = item
        self._traces: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._asked: asyncio.Queue[tuple[Observation, asyncio.Future[str]]] = asyncio.Queue()
        self._run: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[str] | None = None
        self._last = Observation("", 0)

    def reset(self) -> Observation:
        self._run = self._loop.create_task(self._play())
        if self._advance():
            raise InputError(f"task {self._task.name}: the episode ended before the policy was asked")
        return self._last

    def step(self, action: str) -> Step:
        if self._answer is None:
            raise RuntimeError("reset the episode first")
        self._answer.set_result(action)
        if not self._advance():
            return Step(self._last)
        trained = [trace for trace in self._traces if trace.agent.trainable]
        components = dict.fromkeys(self._task.reward_names[1:], 0.0)
        for name, reward in (item for trace in trained for item in trace.rewards.items()):
            if name in components and reward is not None:
                components[name] += float(reward.value)
        reward = float(sum(trace.reward for trace in trained))
        return Step(self._last, reward, True, success=reward >= self._task.success, components=components)

    def close(self) -> None:
        if self._run is not None:
            self._run.cancel()
            self._loop.run_until_complete(asyncio.gather(self._run, return_exceptions=True))
        self._loop.close()

    def _advance(self) -> bool:
        """Run until a seat asks (false) or the episode is over (true)."""
        return self._loop.run_until_complete(self._next())

    async def _next(self) -> bool:
        assert self._run is not None
        asked = asyncio.ensure_future(self._asked.get())
        await asyncio.wait((asked, self._run), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            self._last, self._answer = asked.result()
            return False
        asked.cancel()
        self._run.result()
        return True

    async def _play(self) -> None:
        """verifiers' order of events: set the seats up, run, judge across the traces."""
        library, source = _verifiers(), self._task.source
        seats: list[str] = []

        def seat(name: str, config: Any) -> _Seat:
            seats.append(name)
            return _Seat(name, len(seats) - 1, config, self)

        agents = library.Agents(source.config, seat)
        episode = library.Episode(env=library.EnvInfo(id=source.config.env_id), task=_described(self._item))
        self._traces = episode.traces
        await source.setup(agents)
        await source.run(self._item, agents)
        await source.finalize(self._item, episode)

    async def ask(self, text: str, role: int) -> str:
        """The policy's answer to ``text``."""
        answer = self._loop.create_future()
        await self._asked.put((Observation(text, state_key(text), role), answer))
        return str(await answer)

    def finished(self, trace: Any) -> None:
        """A seat's exchange is over and scored."""
        self._traces.append(trace)


class _Seat:
    """What an environment sees as one of its agents; the policy answers."""

    def __init__(self, name: str, role: int, config: Any, episode: _Episode) -> None:
        self.trainable = True
        self.config = config
        self._name = name
        self._role = role
        self._episode = episode

    async def run(self, task: Any, **_: Any) -> Any:
        """One answer to the task's prompt."""
        async with self.interaction(task) as exchange:
            await exchange.turn()
        return exchange.trace

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncIterator[_Exchange]:
        """Turn by turn; the task's own hooks and rewards follow."""
        library = _verifiers()
        about = library.AgentInfo(config=self.config, name=self._name, trainable=self.trainable)
        trace = library.Trace(task=_described(task), state=library.state_cls(type(task))(), agent=about)
        await library.invoke(task.setup, {"trace": trace, "runtime": None})
        yield _Exchange(self._episode, trace, task, self._role, self.config.max_turns)
        trace.stop("user_closed")
        await library.invoke(task.finalize, {"trace": trace, "runtime": None})
        if not task.scoring_deferred:
            await task.score(trace)
        trace.ok = True
        self._episode.finished(trace)


class _Exchange:
    """One seat's conversation, recorded on its trace."""

    def __init__(self, episode: _Episode, trace: Any, task: Any, role: int, max_turns: int | None) -> None:
        self.trace = trace
        self._episode = episode
        self._role = role
        self._max_turns = max_turns
        library = _verifiers()
        data = task.data
        self._messages = [library.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
        if isinstance(data.prompt, str):
            self._messages.append(library.UserMessage(content=data.prompt))
        else:
            self._messages.extend(data.prompt or [])
        self._unread = list(self._messages)

    async def turn(self, message: Any = None) -> Any:
        """Send a message (the first is the task's prompt where it has one) and take the answer."""
        library = _verifiers()
        if self._max_turns is not None and self.trace.num_turns >= self._max_turns:
            self.trace.stop("max_turns")
            return library.Segment(messages=[], terminated=True)
        sent = [library.UserMessage(content=message)] if isinstance(message, str) else list(message or [])
        self._messages += sent
        text = "\n\n".join(filter(None, (library.content_text(item.content) for item in self._unread + sent)))
        self._unread = []
        reply = library.AssistantMessage(content=await self._episode.ask(text, self._role))
        response = library.Response(id="", created=0, model="policy", message=reply, finish_reason="stop")
        library.prepare_turn(self.trace, list(self._messages)).commit(response)
        self._messages.append(reply)
        return library.Segment(messages=[reply])


def _described(task: Any) -> Any:
    return _verifiers().TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)


def _refuse(task: Any, taskset: Any) -> None:
    library = _verifiers()
    needs = {
        "a container": task.NEEDS_CONTAINER or task.data.image is not None,
        "tools": bool(task.toolsets(task.config) or taskset.toolsets(taskset.config)),
        "@stop hooks": bool(task.hooks("stop")),
        "@intercept hooks": bool(library.discover_decorated(task, "intercept")),
    }
    for need, present in needs.items():
        if present:
            raise InputError(f"task verifiers:{taskset.config.id} needs {need}, which this adapter does not run")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@cache
def _verifiers() -> Any:
    """``verifiers.v1`` and the few names that it does not re-export."""
    library = require("verifiers.v1", "environments")
    return SimpleNamespace(
        **{name: getattr(library, name) for name in library.__all__},
        prepare_turn=require("verifiers.v1.graph", "environments").prepare_turn,
        state_cls=require("verifiers.v1.state", "environments").state_cls,
        content_text=require("verifiers.v1.types", "environments").content_text,
        invoke=require("verifiers.v1.utils.decorators", "environments").invoke,
        discover_decorated=require("verifiers.v1.utils.decorators", "environments").discover_decorated,
    )
