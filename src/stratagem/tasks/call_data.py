"""Data for function calling, prepared by a judge and by rules: questions, tools, and the calls that answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratagem.blueprint.json_schema import problem, schema_problem, with_types
from stratagem.errors import InputError
from stratagem.tasks.call_syntax import CallError, Tool, read_calls, written
from stratagem.tasks.tool_calls import ToolCall

Row = Mapping[str, Any]
Judge = Callable[[Row], Row | None]
"""Reads a row and gives it back as it is when it is right, corrected when it can be, None when it cannot."""


@dataclass(frozen=True)
class Prepared:
    """Rows that are right, how many were corrected on the way, and why the others were dropped, by how many were."""

    rows: list[dict[str, Any]]
    corrected: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


def prepare_calls(rows: Iterable[Row], judge: Judge, rounds: int = 3) -> Prepared:
    """Rows that judge and rules both find right (the two-stage preparation of arXiv 2508.05118).

    A row is ``{"question": text, "tools": [{"name", "description", "parameters": JSON schema}, ...], "calls": text}``;
    further fields stay. In turn the judge reads it and may correct or drop it, and the rules (:func:`by_rule`) correct
    the form of its calls or drop it, until neither changes anything, ``rounds`` times at most. Then the judge reads it
    once more and must leave it as it is. What the judge is told is its own affair; :mod:`stratagem.helpers` has models.

    The order of the stages is the paper's; its prompts and rules were not available, and those here are ours.

    Raises :class:`InputError` for rounds below 1. Needs jsonschema (``stratagem[agents]``).
    """
    if rounds < 1:
        raise InputError(f"prepare_calls: rounds = {rounds}: must be at least 1")
    kept, corrected, dropped = list[dict[str, Any]](), 0, Counter[str]()
    for row in rows:
        found, reason = _settled(row, judge, rounds)
        if found is None:
            dropped[reason] += 1
        else:
            corrected += found != dict(row)
            kept.append(found)
    return Prepared(kept, corrected, dict(dropped))


def prepare_file(source: str | Path, target: str | Path, judge: Judge, rounds: int = 3) -> Prepared:
    """:func:`prepare_calls` from one file of JSON lines to another. Raises :class:`InputError` naming file and line."""
    rows = []
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read ({type(error).__name__})") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{source}, line {number}: is no JSON object")
        rows.append(row)
    prepared = prepare_calls(rows, judge, rounds)
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in prepared.rows)
    Path(target).write_text(text, encoding="utf-8")
    return prepared


def by_rule(row: Row) -> dict[str, Any]:
    """The row with its calls in one form: arguments by name, and text read as the number or list that is wanted.

    Raises :class:`CallError` for what no rule can mend: a schema that is not sound, calls that cannot be parsed, a tool
    that is not there, an argument that is missing, unknown or of another type.
    """
    question, text = row.get("question"), row.get("calls")
    if not isinstance(question, str) or not question.strip() or not isinstance(text, str):
        raise CallError("question and calls must be text")
    tools = read_tools(row.get("tools"))
    try:
        calls = read_calls(text, tools)
    except CallError:
        raise CallError("calls cannot be parsed") from None
    mended = []
    for call in calls:
        if call.name not in tools:
            raise CallError("a tool is not among those given")
        schema = {"type": "object", "additionalProperties": False, **tools[call.name].parameters}
        arguments = with_types(schema, call.arguments)
        if problem(schema, arguments) is not None:
            raise CallError("arguments do not fit the schema")
        mended.append(ToolCall(call.name, arguments))
    return {**row, "calls": f"[{', '.join(map(written, mended))}]"}


def call_problem(call: ToolCall, tool: Tool) -> str | None:
    """What is wrong with the arguments of a call, in one line; None when they fit. Arguments not named are unknown."""
    return problem({"type": "object", "additionalProperties": False, **tool.parameters}, dict(call.arguments))


def read_tools(given: Any) -> dict[str, Tool]:
    """Tools by name. Raises :class:`CallError` for what is none, for a schema that is not sound, or two of one name."""
    tools: dict[str, Tool] = {}
    for entry in given if isinstance(given, list) else [None]:
        described = entry if isinstance(entry, Mapping) else {}
        name, parameters = described.get("name"), described.get("parameters", {})
        if not isinstance(name, str) or not isinstance(parameters, Mapping) or name in tools:
            raise CallError("tools must be a list of names with parameters, each name once")
        if schema_problem(parameters) is not None:
            raise CallError("the schema of a tool is not sound")
        tools[name] = Tool(name, str(described.get("description", "")), parameters)
    return tools


def _settled(row: Row, judge: Judge, rounds: int) -> tuple[dict[str, Any] | None, str]:
    """The row once judge and rules agree, or None and the reason."""
    now = dict(row)
    for _ in range(rounds):
        judged = judge(now)
        if judged is None:
            return None, "the judge dropped it"
        try:
            mended = by_rule(judged)
        except CallError as error:
            return None, str(error)
        if mended == now:
            break
        now = mended
    final = judge(now)
    return (now, "") if final is not None and dict(final) == now else (None, "the judge was not content in the end")
