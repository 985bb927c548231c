"""Agents declared apart from the engine that runs them: blueprints, constraints, tools, memory, runtime, audit."""

from stratagem.blueprint.actions import Action, Choices, Result, Turn
from stratagem.blueprint.agent import BlueprintAgent, run_in_process, run_in_subprocess
from stratagem.blueprint.audit import AuditLog, read_audit, untimed
from stratagem.blueprint.clock import SimulatedLoop, Timed, simulated
from stratagem.blueprint.constraints import After, AtMost, Custom, Forbid, OnlyWith, Predicate, Verdict, Within, judge
from stratagem.blueprint.context import ContextItem, count_pieces, prune
from stratagem.blueprint.deciding import AgentPolicy, Situation
from stratagem.blueprint.graph import TaskGraph
from stratagem.blueprint.memory import Episode, Event, Insight, LayeredMemory, Recalled
from stratagem.blueprint.policies import TextPolicy
from stratagem.blueprint.projection import Projected, project
from stratagem.blueprint.regions import Ball, Box, Polytope
from stratagem.blueprint.runtime import Report
from stratagem.blueprint.schema import Blueprint, BlueprintError, ToolSpec
from stratagem.blueprint.sources import mcp_server, mcp_tool, opened
from stratagem.blueprint.speculation import Speculated, speculate
from stratagem.blueprint.tools import Tool, Toolbox, function_tool

__all__ = [
    "Action",
    "After",
    "AgentPolicy",
    "AtMost",
    "AuditLog",
    "Ball",
    "Blueprint",
    "BlueprintAgent",
    "BlueprintError",
    "Box",
    "Choices",
    "ContextItem",
    "Custom",
    "Episode",
    "Event",
    "Forbid",
    "Insight",
    "LayeredMemory",
    "OnlyWith",
    "Polytope",
    "Predicate",
    "Projected",
    "Recalled",
    "Report",
    "Result",
    "SimulatedLoop",
    "Situation",
    "Speculated",
    "TaskGraph",
    "TextPolicy",
    "Timed",
    "Tool",
    "ToolSpec",
    "Toolbox",
    "Turn",
    "Verdict",
    "Within",
    "count_pieces",
    "function_tool",
    "judge",
    "mcp_server",
    "mcp_tool",
    "opened",
    "project",
    "prune",
    "read_audit",
    "run_in_process",
    "run_in_subprocess",
    "simulated",
    "speculate",
    "untimed",
]
