"""Tools: functions behind a JSON schema, called with a time limit; whatever goes wrong is a result, never fatal."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from stratagem.blueprint.actions import Action, Result, canonical
from stratagem.blueprint.checks import HARMLESS
from stratagem.blueprint.json_schema import problem, with_types
from stratagem.blueprint.schema import ToolSpec
from stratagem.errors import InputError, unknown

Repair = Callable[[Action, str], Action | None]
"""Another try at a call, given it and what is wrong with its arguments; None: there is none."""


@dataclass(frozen=True)
class Tool:
    """A tool and what is behind it.

    spec: as a blueprint declares it.  run: called with the arguments, which fit ``spec.input``; its value is JSON data.
    opening: what is to be read before the first call, where there is something.
    """

    spec: ToolSpec
    run: Callable[[Mapping[str, Any]], Awaitable[Any]]
    opening: str | None = None

    @property
    def speculative(self) -> bool:
        """Whether it may be called ahead of a decision: only without side effects."""
        return self.spec.side_effect in HARMLESS


def function_tool(spec: ToolSpec, function: Callable[..., Any]) -> Tool:
    """A tool that calls ``function(**arguments)``: a coroutine is awaited, all else runs in a thread of its own.

    A thread that hangs cannot be ended: the call times out, and the thread is left behind (it does not keep the process
    from ending). What may hang for good belongs into an MCP server, which is a process.
    """

    async def run(arguments: Mapping[str, Any]) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
        return await _in_thread(lambda: function(**arguments))

    return Tool(spec, run)


async def _in_thread(work: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result(value) if error is None else future.set_exception(error)

    def thread() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:
            # What a future cannot hold, or would end the loop.
            plain = isinstance(raised, Exception) and not isinstance(raised, StopIteration)
            error = raised if plain else RuntimeError(repr(raised))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    with getattr(loop, "outside", nullcontext)():
        threading.Thread(target=thread, daemon=True).start()
        return await future


@dataclass(frozen=True)
class Prepared:
    """An action as it would be executed.

    fault: why it cannot be.  repaired: its arguments are not those that were given first.
    """

    action: Action
    fault: str | None = None
    repaired: bool = False


@dataclass
class Toolbox:
    """Tools by name.

    seconds: of a call, where the tool says nothing else.  repair: what may put wrong arguments right, once for each
    call; by default, texts are read as the numbers, truth values, lists and objects that the schema wants.
    counts: results by status, and ``repaired``.

    Raises :class:`InputError` when two tools have one name.
    """

    tools: Mapping[str, Tool]
    seconds: float = 30.0
    repair: Repair | None = None
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, tools: Iterable[Tool], seconds: float = 30.0, repair: Repair | None = None) -> Toolbox:
        """A toolbox of these tools."""
        found: dict[str, Tool] = {}
        for tool in tools:
            if tool.spec.name in found:
                raise InputError(f"tool {tool.spec.name!r} is there twice")
            found[tool.spec.name] = tool
        return cls(found, seconds, repair)

    def fault(self, action: Action) -> str | None:
        """What is wrong with a call before it is made, in one line; None when nothing is."""
        tool = self.tools.get(action.tool)
        if tool is None:
            return str(unknown("tool", action.tool, self.tools))
        try:
            canonical(dict(action.arguments))
        except (TypeError, ValueError) as error:
            return f"arguments are no JSON: {error}"
        return problem(tool.spec.input, dict(action.arguments))

    def prepare(self, action: Action) -> Prepared:
        """The call as it would be made: checked, and repaired once where that is needed and helps."""
        fault = self.fault(action)
        if fault is None:
            return Prepared(action)
        try:
            repaired = self._repaired(action, fault)
        except Exception:
            repaired = None
        if repaired is None or self.fault(repaired) is not None:
            return Prepared(action, fault)
        return Prepared(repaired, repaired=True)

    def _repaired(self, action: Action, fault: str) -> Action | None:
        if self.repair is not None:
            return self.repair(action, fault)
        tool = self.tools.get(action.tool)
        return None if tool is None else Action(action.tool, with_types(tool.spec.input, action.arguments))

    async def call(self, action: Action) -> Result:
        """Make a call and wait for it, as long as it may take. Nothing it does is raised, and it is counted."""
        result = await self._call(action)
        self.counts[result.status] += 1
        return result

    async def repaired_call(self, action: Action) -> Result:
        """:meth:`prepare`, then :meth:`call`."""
        prepared = self.prepare(action)
        self.counts["repaired"] += prepared.repaired
        return await self.call(prepared.action)

    async def _call(self, action: Action) -> Result:
        fault = self.fault(action)
        if fault is not None:
            return Result("invalid", message=fault)
        tool = self.tools[action.tool]
        seconds = tool.spec.timeout or self.seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                value = await tool.run(dict(action.arguments))
        except TimeoutError as error:
            if limit.expired():
                return Result("timeout", message=f"took longer than {seconds:g} s")
            return _failed(error)
        except Exception as error:
            return _failed(error)
        return _checked(tool.spec, value)


def _failed(error: Exception) -> Result:
    return Result("error", message=" ".join(f"{type(error).__name__}: {error}".split())[:500])


def _checked(spec: ToolSpec, value: Any) -> Result:
    try:
        canonical(value)
    except (TypeError, ValueError) as error:
        return Result("error", message=f"the value is no JSON: {error}")
    wrong = None if spec.output is None else problem(spec.output, value)
    return Result(value=value) if wrong is None else Result("error", message=f"the value is not as declared: {wrong}")
