"""What a blueprint must fulfil beyond the types of its fields; every fault is found, not only the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stratagem.blueprint.actions import ASK, FINISH
from stratagem.blueprint.constraints import After, Forbid, OnlyWith, Within
from stratagem.blueprint.graph import TaskGraph
from stratagem.blueprint.json_schema import problem, schema_problem
from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.blueprint.schema import Blueprint, Node

HARMLESS = frozenset({"none", "read"})
"""Side effects of tools that may be called when nothing else is allowed, and ahead of a decision."""


def faults_of(blueprint: Blueprint) -> list[str]:
    """One line for each fault, none for a sound blueprint."""
    return [
        *_tool_faults(blueprint),
        *_constraint_faults(blueprint),
        *_workflow_faults(blueprint),
        *_fallback_faults(blueprint),
        *_evolution_faults(blueprint),
    ]


def _tool_faults(blueprint: Blueprint) -> Iterator[str]:
    yield from _repeated("tools", [tool.name for tool in blueprint.tools])
    for place, tool in enumerate(blueprint.tools):
        if tool.name in (FINISH, ASK):
            yield f"tools.{place}.name: {tool.name!r} is an action every agent has"
        for field, schema in (("input", tool.input), ("output", tool.output)):
            wrong = None if schema is None else schema_problem(schema)
            if wrong is not None:
                yield f"tools.{place}.{field}: no valid JSON schema: {wrong}"
        if tool.input.get("type") != "object":
            yield f"tools.{place}.input: must be of type object"


def _constraint_faults(blueprint: Blueprint) -> Iterator[str]:
    yield from _repeated("constraints", [constraint.name for constraint in blueprint.constraints])
    known = {FINISH, ASK, *(tool.name for tool in blueprint.tools)}
    for place, constraint in enumerate(blueprint.constraints):
        for field in ("tool", "first"):
            name = getattr(constraint, field, None)
            if name is not None and name not in known:
                yield f"constraints.{place}.{field}: no tool {name!r}"
        if isinstance(constraint, After) and constraint.tool == constraint.first:
            yield f"constraints.{place}.first: a tool cannot come after itself"
        if isinstance(constraint, Forbid | OnlyWith) and constraint.arguments is not None:
            wrong = schema_problem(constraint.arguments)
            if wrong is not None:
                yield f"constraints.{place}.arguments: no valid JSON schema: {wrong}"
        if isinstance(constraint, Within):
            yield from _repeated(f"constraints.{place}.arguments", constraint.arguments)
            if len(constraint.arguments) != constraint.region.dimensions:
                yield (
                    f"constraints.{place}.region: has {constraint.region.dimensions} dimensions, "
                    f"arguments are {len(constraint.arguments)}"
                )


def _workflow_faults(blueprint: Blueprint) -> Iterator[str]:
    ids = [node.id for node in blueprint.workflow]
    repeated = list(_repeated("workflow", ids))
    yield from repeated
    for place, node in enumerate(blueprint.workflow):
        if blueprint.tool(node.tool) is None:
            yield f"workflow.{place}.tool: no tool {node.tool!r}"
    if not repeated:
        try:
            graph_of(blueprint.workflow)
        except InputError as error:
            yield f"workflow: {error}"


def _fallback_faults(blueprint: Blueprint) -> Iterator[str]:
    null = blueprint.fallback
    if null is None:
        return
    tool = blueprint.tool(null.tool)
    if tool is None:
        yield f"fallback.tool: no tool {null.tool!r}"
        return
    if tool.side_effect not in HARMLESS:
        yield f"fallback.tool: {null.tool!r} has side effect {tool.side_effect}; must be none or read"
    if schema_problem(tool.input) is None and (wrong := problem(tool.input, null.arguments)) is not None:
        yield f"fallback.arguments: {wrong}"


def _evolution_faults(blueprint: Blueprint) -> Iterator[str]:
    evolution = blueprint.evolution
    if evolution.level < 2:
        if evolution.recipe is not None or evolution.values:
            yield f"evolution.recipe: level {evolution.level} changes no weights, so it has no recipe"
    elif evolution.recipe is not None or evolution.values:
        try:
            evolution.build()
        except InputError as error:
            yield f"evolution.recipe: {error}"


def _repeated(where: str, names: Sequence[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{where}: {name!r} stands {names.count(name)} times"


def graph_of(workflow: Iterable[Node]) -> TaskGraph:
    """The graph of a workflow. Raises :class:`InputError` for a cycle, and for a node that is not there."""
    return TaskGraph({node.id: tuple(dict.fromkeys((*node.after, *mentioned(node.arguments)))) for node in workflow})


def mentioned(value: Any) -> Iterator[str]:
    """Nodes whose values stand in some arguments."""
    if isinstance(value, dict):
        if value.keys() == {"$node"} and isinstance(value["$node"], str):
            yield value["$node"]
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from mentioned(item)
