"""Calls written as ``[name(argument=value, ...), ...]``: read as a syntax tree, never evaluated, and compared."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stratagem.tasks.tool_calls import ToolCall

LONGEST = 20_000
"""Characters that are read; a longer text has no calls."""

_CLOSE = 1e-6


class CallError(ValueError):
    """A text that is no list of calls, or one with an argument that no tool can be given."""


@dataclass(frozen=True)
class Tool:
    """What can be called. ``parameters``: the JSON schema of an object, with ``properties`` in order, ``required`` and,
    in a property, ``default``."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def properties(self) -> Mapping[str, Mapping[str, Any]]:
        """Schema of every parameter, in the order of positional arguments."""
        properties: Mapping[str, Mapping[str, Any]] = self.parameters.get("properties", {})
        return properties

    @property
    def required(self) -> frozenset[str]:
        """Parameters that every call gives."""
        return frozenset(self.parameters.get("required", ()))

    @property
    def signature(self) -> str:
        """As a policy is shown it: ``name(a: integer, b: string = "x") -- what it does``."""
        given = []
        for name, schema in self.properties.items():
            default = "" if name in self.required else f" = {json.dumps(schema.get('default'))}"
            given.append(f"{name}: {_typed(schema)}{default}")
        return f"{self.name}({', '.join(given)})" + (f" -- {self.description}" if self.description else "")


@dataclass(frozen=True)
class WantedCall:
    """A call that is right: of each argument every value that is accepted."""

    name: str
    arguments: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def written(self) -> str:
        """The call with the first value of each."""
        return written(ToolCall(self.name, {name: values[0] for name, values in self.arguments.items()}))


def _typed(schema: Mapping[str, Any]) -> str:
    """The type that a schema asks for: ``array of number``, ``{room: string, shelf: integer}``."""
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(properties, Mapping):
        return "{" + ", ".join(f"{name}: {_typed(inner)}" for name, inner in properties.items()) + "}"
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_typed(items)}" if isinstance(items, Mapping) else kind


def written(call: ToolCall) -> str:
    """A call as it is read back: ``name(argument='value')``."""
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in call.arguments.items())})"


def read_calls(text: str, tools: Mapping[str, Tool] | None = None) -> list[ToolCall]:
    """The calls of ``[name(argument=value, ...), ...]``, in order; none in ``[]``.

    Values are literals: text, numbers with or without a sign, ``True``, ``False``, ``None``, and lists, tuples (read as
    lists) and dictionaries with text for keys. A name may have dots. Positional arguments are those of the tool's
    properties in their order, where the tool is known. The text is parsed into a syntax tree and read off it; nothing
    in it is ever run.

    Raises :class:`CallError` saying what is wrong.
    """
    if len(text) > LONGEST:
        raise CallError(f"{len(text)} characters, where at most {LONGEST} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise CallError(f"no expression ({type(error).__name__})") from None
    if not isinstance(tree, ast.List):
        raise CallError("no list of calls")
    try:
        return [_call(node, tools or {}) for node in tree.elts]
    except RecursionError:
        raise CallError("nested too deeply") from None


def same_calls(
    given: Sequence[ToolCall], wanted: Sequence[WantedCall], tools: Mapping[str, Tool], ordered: bool = False
) -> bool:
    """Whether these are the calls that are wanted, each as often as it is.

    ordered: whether their order counts.
    """
    if len(given) != len(wanted):
        return False
    fits = [[same_call(call, want, tools.get(want.name)) for want in wanted] for call in given]
    if ordered:
        return all(row[place] for place, row in enumerate(fits))
    return _all_matched(fits)


def same_call(given: ToolCall, wanted: WantedCall, tool: Tool | None = None) -> bool:
    """Whether a call is the one that is wanted.

    Every argument has one of the values that are accepted. One that the tool does not require may be left out, or
    given, as its default; where the default is not among the values that are accepted, it must be given. No other
    argument may be there.
    """
    if given.name != wanted.name:
        return False
    for name in {**wanted.arguments, **given.arguments}:
        accepted = list(wanted.arguments.get(name, ()))
        optional = tool is not None and name in tool.properties and name not in tool.required
        default = tool.properties[name].get("default") if tool is not None and optional else None
        if name not in wanted.arguments:
            if not optional:
                return False
            accepted = [default]
        if name in given.arguments:
            if not any(same_value(given.arguments[name], value) for value in accepted):
                return False
        elif not optional or not any(_default(default, value) for value in accepted):
            return False
    return True


def same_value(given: Any, wanted: Any) -> bool:
    """Whether two literals say the same.

    Numbers within one millionth, whether whole or not; what is not finite is equal to nothing. Text but for the space
    around it, letter for letter. Lists item by item, dictionaries whatever the order of their keys. A truth value is no
    number.
    """
    if isinstance(given, bool) or isinstance(wanted, bool) or given is None or wanted is None:
        return type(given) is type(wanted) and bool(given == wanted)
    if isinstance(given, int | float) and isinstance(wanted, int | float):
        return _same_number(given, wanted)
    if isinstance(given, str) and isinstance(wanted, str):
        return given.strip() == wanted.strip()
    if isinstance(given, list | tuple) and isinstance(wanted, list | tuple):
        return len(given) == len(wanted) and all(map(same_value, given, wanted))
    if isinstance(given, Mapping) and isinstance(wanted, Mapping):
        return given.keys() == wanted.keys() and all(same_value(given[name], wanted[name]) for name in wanted)
    return False


def _default(default: Any, value: Any) -> bool:
    return default is not None and same_value(default, value)


def _same_number(given: float, wanted: float) -> bool:
    if isinstance(given, int) and isinstance(wanted, int):
        return given == wanted
    try:
        return math.isfinite(given) and math.isfinite(wanted) and math.isclose(given, wanted, rel_tol=_CLOSE)
    except OverflowError:  # A whole number beyond all floating ones.
        return False


def _all_matched(fits: Sequence[Sequence[bool]]) -> bool:
    """Whether rows and columns can be paired one to one (by augmenting paths)."""
    of_column: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in of_column or place(of_column[column], tried):
                    of_column[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


# ---- the syntax tree ------------------------------------------------------------------------------------------------


def _call(node: ast.expr, tools: Mapping[str, Tool]) -> ToolCall:
    if not isinstance(node, ast.Call):
        raise CallError(f"{type(node).__name__} where a call belongs")
    name = _name(node.func)
    known = list(tools[name].properties) if name in tools else []
    arguments: dict[str, Any] = {}
    for place, value in enumerate(node.args):
        if place >= len(known):
            raise CallError(f"{name}: positional argument {place + 1} has no name")
        arguments[known[place]] = _literal(value)
    for keyword in node.keywords:
        if keyword.arg is None:
            raise CallError(f"{name}: arguments are written one by one")
        if keyword.arg in arguments:
            raise CallError(f"{name}: argument {keyword.arg} is there twice")
        arguments[keyword.arg] = _literal(keyword.value)
    return ToolCall(name, arguments)


def _name(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise CallError("a call of something without a name")
    return ".".join([node.id, *reversed(parts)])


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd) and _is_number(node.operand):
        value = _literal(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _literal(key) for key in node.keys]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise CallError("keys of a dictionary are text, each there once")
        return dict(zip(keys, map(_literal, node.values), strict=True))
    raise CallError(f"{type(node).__name__} where a literal belongs")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)
