"""Where the tools of a blueprint come from: functions, MCP servers, episodes of tasks, and the program itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from stratagem.blueprint.references import resolve
from stratagem.blueprint.schema import Blueprint, McpSource, PythonSource, TaskSource, ToolSpec
from stratagem.blueprint.tools import Tool, function_tool
from stratagem.errors import InputError
from stratagem.tasks.adapter import require

CONNECT_SECONDS = 30.0
"""An MCP server must have answered by then."""


@asynccontextmanager
async def opened(
    blueprint: Blueprint, functions: Mapping[str, Callable[..., Any]] | None = None, folder: Path | None = None
) -> AsyncIterator[list[Tool]]:
    """The tools of a blueprint while this is entered; servers are started and ended with it, one for each command.

    functions: for tools of source ``host``, by name.  folder: where files that the blueprint refers to are.
    Raises :class:`InputError` for a function or server that cannot be had, and a tool that a server does not have.
    """
    async with AsyncExitStack() as stack:
        servers: dict[tuple[str, ...], Any] = {}
        tools = []
        for spec in blueprint.tools:
            source = spec.source
            if isinstance(source, McpSource):
                if source.command not in servers:
                    servers[source.command] = await stack.enter_async_context(mcp_server(source.command))
                tools.append(await mcp_tool(servers[source.command], spec))
            elif isinstance(source, TaskSource):
                tools.append(_task_tool(spec, source, stack))
            elif isinstance(source, PythonSource):
                tools.append(function_tool(spec, resolve(source.function, folder)))
            elif functions is not None and spec.name in functions:
                tools.append(function_tool(spec, functions[spec.name]))
            else:
                raise InputError(f"tool {spec.name!r}: the program must pass a function for it (source host)")
        yield tools


# ---- the Model Context Protocol -------------------------------------------------------------------------------------


@asynccontextmanager
async def mcp_server(target: Any) -> AsyncIterator[Any]:
    """A client of the official SDK that is connected to a server.

    target: a command with its arguments, spoken to over stdio; or whatever else ``mcp.Client`` connects to, such as a
    server object in this process. Raises :class:`InputError` when it does not answer.
    """
    mcp = require("mcp", "agents")
    if isinstance(target, tuple | list):
        shown = " ".join(target)
        target = mcp.stdio_client(mcp.StdioServerParameters(command=target[0], args=list(target[1:])))
    else:
        shown = type(target).__name__
    client = mcp.Client(target)
    # Entered and left by hand: what is raised while it is used is not to be taken for a failure to connect.
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.__aenter__()
    except Exception as error:
        raise InputError(f"MCP server {shown!r} does not answer ({_innermost(error)})") from error
    try:
        yield client
    finally:
        await client.__aexit__(None, None, None)


async def mcp_tool(client: Any, spec: ToolSpec) -> Tool:
    """A tool of a connected server. Raises :class:`InputError` when the server has none of this name.

    What a server says of side effects is a hint and not believed: the blueprint's word counts.
    """
    name = (spec.source.tool if isinstance(spec.source, McpSource) else None) or spec.name
    known: list[str] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        known += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if not cursor:
            break
    if name not in known:
        raise InputError(f"tool {spec.name!r}: the MCP server has no {name!r}; it has {', '.join(sorted(known))}")

    async def run(arguments: Mapping[str, Any]) -> Any:
        result = await client.call_tool(name, dict(arguments))
        texts = [text for block in result.content if (text := getattr(block, "text", None)) is not None]
        if result.is_error:
            raise RuntimeError("\n".join(texts) or "the server reports an error")
        return "\n".join(texts) if result.structured_content is None else result.structured_content

    return Tool(spec, run)


def _innermost(error: BaseException) -> str:
    """The first of a group of errors that is none, by its type and message."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())


# ---- tasks of the library -------------------------------------------------------------------------------------------


def _task_tool(spec: ToolSpec, source: TaskSource, stack: AsyncExitStack) -> Tool:
    """One episode: every call is an action of it, its value what that led to. After its end a call is an error."""
    from stratagem.tasks import registry
    from stratagem.tasks.task import Task

    task = registry.make(source.task)
    if not isinstance(task, Task):
        raise InputError(f"tool {spec.name!r}: task {source.task} is not one of text")
    environment = task.environment(source.split, source.index)
    stack.callback(environment.close)
    opening = environment.reset()
    over = False

    def act(text: str) -> dict[str, Any]:
        nonlocal over
        if over:
            raise RuntimeError("the episode is over")
        step = environment.step(text)
        over = step.done
        return {
            "observation": step.observation.text,
            "reward": step.reward,
            "done": step.done,
            "success": step.success,
        }

    tool = function_tool(spec, act)
    return Tool(spec, tool.run, opening.text)
