"""Tools: arguments are checked before anything runs, one repair, time limits, MCP servers, episodes of tasks."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest

from stratagem.blueprint import Action, Blueprint, Result, Tool, Toolbox, ToolSpec, function_tool, mcp_server, mcp_tool
from stratagem.blueprint.sources import opened
from stratagem.errors import InputError

ADD = ToolSpec.model_validate(
    {
        "name": "add",
        "side_effect": "none",
        "input": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        "output": {"type": "number"},
    }
)


def spec(**fields: Any) -> ToolSpec:
    return ToolSpec.model_validate({"name": "tool", "side_effect": "none", **fields})


def add(a: float, b: float) -> float:
    return a + b


def called(tool: Tool, arguments: dict[str, Any], **options: Any) -> Result:
    box = Toolbox.of([tool], **options)
    result = asyncio.run(box.call(Action(tool.spec.name, arguments)))
    assert box.counts[result.status] == 1
    return result


# ---- functions ------------------------------------------------------------------------------------------------------


def test_a_function_is_called_with_its_arguments_by_name():
    assert called(function_tool(ADD, add), {"b": 1, "a": 2}) == Result(value=3)


@pytest.mark.parametrize(
    "arguments", [{}, {"a": 1}, {"a": 1, "b": "x"}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": {1}}, {"a": 1, "b": 1e999}]
)
def test_wrong_arguments_never_reach_the_function(arguments: dict[str, Any]):
    reached = []
    result = called(function_tool(ADD, lambda **given: reached.append(given)), arguments)
    assert result.status == "invalid" and result.message and "\n" not in result.message
    assert not reached


def test_a_tool_that_is_not_there_is_a_result():
    box = Toolbox.of([function_tool(ADD, add)])
    result = asyncio.run(box.call(Action("ad", {})))
    assert result.status == "invalid" and "did you mean 'add'" in result.message


def test_texts_are_read_as_numbers_where_numbers_are_wanted_and_only_there():
    box = Toolbox.of([function_tool(ADD, add)])
    prepared = box.prepare(Action("add", {"a": "1.5", "b": 2}))
    assert prepared.repaired and prepared.action.arguments == {"a": 1.5, "b": 2} and prepared.fault is None
    assert asyncio.run(box.repaired_call(Action("add", {"a": "1.5", "b": 2}))).value == 3.5
    assert box.counts == {"ok": 1, "repaired": 1}
    hopeless = box.prepare(Action("add", {"a": "one", "b": 2}))
    assert not hopeless.repaired and hopeless.fault is not None


def test_a_repair_is_tried_once_and_its_own_failures_are_no_failure_of_the_run():
    tries = []

    def repair(action: Action, fault: str) -> Action | None:
        tries.append(fault)
        return Action("add", {"a": 1})

    box = Toolbox.of([function_tool(ADD, add)], repair=repair)
    assert box.prepare(Action("add", {})).fault is not None and len(tries) == 1

    def broken(action: Action, fault: str) -> Action | None:
        raise KeyError(fault)

    assert Toolbox.of([function_tool(ADD, add)], repair=broken).prepare(Action("add", {})).fault is not None


def test_a_function_that_hangs_times_out_whether_it_is_async_or_blocks():
    async def sleeps() -> None:
        await asyncio.sleep(60)

    begun = time.perf_counter()
    for function in (sleeps, lambda: time.sleep(2)):
        result = called(function_tool(spec(timeout=0.05), function), {})
        assert result.status == "timeout" and "0.05 s" in result.message
    assert time.perf_counter() - begun < 1.5


def test_a_timeout_that_a_function_raises_itself_is_its_error():
    def gives_up() -> None:
        raise TimeoutError("the other side")

    assert called(function_tool(spec(), gives_up), {}).status == "error"


@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit(3), StopIteration()])
def test_whatever_a_function_raises_is_a_result_of_one_line(error: BaseException):
    def fails() -> None:
        raise error

    result = called(function_tool(spec(), fails), {})
    assert result.status == "error" and "\n" not in result.message


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), "text", object()])
def test_a_value_that_is_no_json_or_not_as_declared_is_an_error(value: Any):
    assert called(function_tool(spec(output={"type": "number"}), lambda: value), {}).status == "error"


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(InputError, match="'add' is there twice"):
        Toolbox.of([function_tool(ADD, add)] * 2)


def test_only_tools_without_side_effects_may_be_called_ahead():
    allowed = {
        effect: function_tool(spec(side_effect=effect), add).speculative
        for effect in ("none", "read", "write", "irreversible")
    }
    assert allowed == {"none": True, "read": True, "write": False, "irreversible": False}


# ---- a blueprint's sources ------------------------------------------------------------------------------------------


def blueprint(*tools: dict[str, Any]) -> Blueprint:
    return Blueprint.parse({"identity": {"name": "a", "version": "1"}, "goal": "b", "tools": list(tools)})


def from_blueprint(tool: dict[str, Any], *calls: dict[str, Any], **options: Any) -> tuple[Tool, list[Result]]:
    async def run() -> tuple[Tool, list[Result]]:
        async with opened(blueprint(tool), **options) as tools:
            box = Toolbox.of(tools, seconds=10)
            return tools[0], [await box.call(Action(tool["name"], arguments)) for arguments in calls]

    return asyncio.run(run())


def test_a_function_of_a_file_beside_the_blueprint_is_found(tmp_path):
    (tmp_path / "helpers.py").write_text("def double(n):\n    return 2 * n\n")
    source = {"kind": "python", "function": "helpers.py:double"}
    tool = {"name": "double", "side_effect": "none", "source": source}
    assert from_blueprint(tool, {"n": 4}, folder=tmp_path)[1] == [Result(value=8)]
    with pytest.raises(InputError, match="no file"):
        from_blueprint(tool, folder=tmp_path / "elsewhere")


@pytest.mark.parametrize("function", ["math:squareroot", "no.such.module:name"])
def test_a_function_that_is_not_there_is_one_clear_error(function: str):
    with pytest.raises(InputError, match="reference"):
        from_blueprint({"name": "a", "side_effect": "none", "source": {"kind": "python", "function": function}})


def test_a_tool_of_the_program_must_be_passed():
    with pytest.raises(InputError, match="'a': the program must pass"):
        from_blueprint({"name": "a", "side_effect": "none"})


def test_an_episode_of_a_task_is_a_tool_until_it_is_over():
    tool = {"name": "act", "side_effect": "write", "source": {"kind": "task", "task": "toolbox:kind=sum", "index": 3}}
    from stratagem.tasks.toolbox import ToolboxTask

    answer = next(ToolboxTask(kind="sum").solution("train", 3))
    built, results = from_blueprint(tool, {"text": answer}, {"text": answer})
    assert built.opening == ToolboxTask(kind="sum").question("train", 3).text
    assert results[0].value["success"] and results[0].value["reward"] == 1.0
    assert results[1].status == "error" and "over" in results[1].message


# ---- the Model Context Protocol -------------------------------------------------------------------------------------

SERVER = """
import time
from mcp.server.mcpserver import MCPServer
server = MCPServer("numbers")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
@server.tool()
def fail() -> str:
    raise ValueError("on purpose")
@server.tool()
def hang() -> str:
    time.sleep(30)
    return "late"
"""


def namespace() -> dict[str, Any]:
    pytest.importorskip("mcp")
    found: dict[str, Any] = {}
    exec(SERVER, found)
    return found


def test_a_server_in_this_process_is_called_and_its_errors_are_results():
    server = namespace()["server"]

    async def run() -> list[Result]:
        async with asyncio.timeout(20), mcp_server(server) as client:
            tools = [await mcp_tool(client, spec(name=name)) for name in ("add", "fail")]
            box = Toolbox.of(tools, seconds=5)
            return [
                await box.call(Action("add", {"a": 1, "b": 2})),
                await box.call(Action("fail")),
                await box.call(Action("add", {"a": "x"})),
            ]

    added, failed, wrong = asyncio.run(run())
    assert added.ok and added.value == {"result": 3}
    assert failed.status == "error" and "on purpose" in failed.message
    assert wrong.status == "error"


def test_a_tool_that_the_server_does_not_have_is_one_clear_error():
    async def run() -> None:
        async with asyncio.timeout(20), mcp_server(namespace()["server"]) as client:
            await mcp_tool(client, spec(name="subtract"))

    with pytest.raises(InputError, match="has no 'subtract'; it has add, fail, hang"):
        asyncio.run(run())


def test_a_server_over_stdio_is_called_and_a_tool_of_it_that_hangs_times_out(tmp_path):
    pytest.importorskip("mcp")
    script = tmp_path / "server.py"
    script.write_text(SERVER + "server.run()\n")
    source = {"kind": "mcp", "command": [sys.executable, str(script)]}

    async def run() -> list[Result]:
        both = blueprint(
            {"name": "plus", "side_effect": "none", "source": {**source, "tool": "add"}},
            {"name": "hang", "side_effect": "none", "source": source, "timeout": 0.3},
        )
        async with asyncio.timeout(30), opened(both) as tools:
            box = Toolbox.of(tools, seconds=10)
            return [await box.call(Action("plus", {"a": 2, "b": 3})), await box.call(Action("hang"))]

    added, hung = asyncio.run(run())
    assert added.value == {"result": 5}
    assert hung.status == "timeout"


def test_a_command_that_is_no_server_is_one_clear_error():
    pytest.importorskip("mcp")
    source = {"kind": "mcp", "command": ["/no/such/program"]}
    with pytest.raises(InputError, match=r"MCP server '/no/such/program' does not answer"):
        from_blueprint({"name": "a", "side_effect": "none", "source": source})
