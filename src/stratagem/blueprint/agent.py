"""An agent: a blueprint with what it does not hold itself, and the engines that run it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stratagem.blueprint.audit import AuditLog
from stratagem.blueprint.constraints import Predicate
from stratagem.blueprint.context import CountTokens, count_pieces
from stratagem.blueprint.deciding import AgentPolicy, Decider, Rules
from stratagem.blueprint.memory import LayeredMemory, important
from stratagem.blueprint.references import resolve
from stratagem.blueprint.runtime import Report, Runtime
from stratagem.blueprint.schema import Blueprint
from stratagem.blueprint.sources import opened
from stratagem.blueprint.tools import Toolbox
from stratagem.catalogue import paper
from stratagem.errors import BrokenRunError, InputError
from stratagem.recipe import Recipe


@paper(
    "2602.23720",
    title="The Auton Agentic AI Framework",
    family="agents",
    roles=("policy", "memory", "planner", "metric"),
    year=2026,
    name="auton",
)
@dataclass(frozen=True)
class BlueprintAgent:
    """A declared agent, apart from the engine that runs it. Its policy is projected on what is allowed, ``pi'(a) =
    pi(a) 1[a allowed] / pi(allowed)``, before an action is drawn; all it does is on record with the blueprint's hash.

    blueprint: what is declared.  policy: what decides; None: the one that the blueprint refers to.
    functions: for tools of source ``host``, by name.  predicates: for constraints of kind ``predicate``, by name.
    folder: where files are that the blueprint refers to.  count_tokens: for the budgets of tokens.

    The formulas of the paper were not available. Projection, memory, scheduling and speculation are reconstructions in
    standard form of what it describes; the file format is ours, and not its AgenticFormat.

    Running an agent imports and calls the code that its blueprint refers to: run only blueprints you trust.
    """

    blueprint: Blueprint
    policy: AgentPolicy | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    predicates: Mapping[str, Predicate] = field(default_factory=dict)
    folder: Path | None = None
    count_tokens: CountTokens = count_pieces

    def run(self, observation: str = "", **options: Any) -> Report:
        """:meth:`start` in an event loop of its own."""
        return asyncio.run(self.start(observation, **options))

    async def start(
        self,
        observation: str = "",
        *,
        seed: int = 0,
        memory: LayeredMemory | None = None,
        audit: str | Path | None = None,
        timed: bool = True,
        workflow: bool = False,
    ) -> Report:
        """One run: of the policy, or of the workflow.

        seed: decides what is drawn.  memory: that goes on from earlier runs (level 1 of self-evolution); None: empty.
        audit: file the log is added to.  timed: note the time of every entry.

        Raises :class:`InputError` when something the blueprint refers to cannot be had.
        """
        blueprint, loop = self.blueprint, asyncio.get_running_loop()
        policy = self._policy() if not workflow else _no_policy
        rules = Rules.of(blueprint, self.predicates, self.folder)
        memory = self.memory() if memory is None else memory
        async with opened(blueprint, self.functions, self.folder) as tools:
            repair = getattr(policy, "repair", None)
            toolbox = Toolbox.of(tools, blueprint.budgets.tool_seconds, repair)
            log = AuditLog(blueprint.hash, audit, loop.time if timed else None)
            decider = Decider(blueprint, policy, rules, toolbox, seed)
            runtime = Runtime(blueprint, decider, memory, log, self.count_tokens)
            return await (runtime.run_workflow() if workflow else runtime.run(observation))

    def memory(self) -> LayeredMemory:
        """An empty memory as the blueprint declares it."""
        spec = self.blueprint.memory
        reflector = important if spec.reflector is None else resolve(spec.reflector, self.folder)
        return LayeredMemory(spec, reflector)

    def recipe(self) -> Recipe:
        """What it learns by at levels 2 and 3 (``rejection_sft``, ``grpo`` or the one declared), for ``train``.

        Raises :class:`InputError` at levels 0 and 1.
        """
        return self.blueprint.evolution.build()

    def _policy(self) -> AgentPolicy:
        if self.policy is not None:
            return self.policy
        spec = self.blueprint.policy
        if spec.function is None:
            raise InputError("blueprint: policy.function is none, so the program must pass a policy")
        policy: AgentPolicy = resolve(spec.function, self.folder)(**spec.arguments)
        return policy


def _no_policy(situation: Any) -> Any:
    raise InputError("a workflow asks no policy")


def run_in_process(
    blueprint: Blueprint, observation: str = "", *, seed: int = 0, folder: Path | None = None, workflow: bool = False
) -> list[dict[str, Any]]:
    """The log, without times, of a blueprint that holds or refers to all it needs, run in this process."""
    agent = BlueprintAgent(blueprint, folder=folder)
    report = agent.run(observation, seed=seed, timed=False, workflow=workflow)
    return [dict(entry) for entry in report.entries]


def run_in_subprocess(
    blueprint: Blueprint,
    observation: str = "",
    *,
    seed: int = 0,
    folder: Path | None = None,
    workflow: bool = False,
    seconds: float = 300.0,
) -> list[dict[str, Any]]:
    """The same in a Python process of its own, which sees nothing but the blueprint.

    Raises :class:`BrokenRunError` when it fails, or takes longer than ``seconds``.
    """
    asked = {
        "blueprint": blueprint.model_dump(mode="json"),
        "observation": observation,
        "seed": seed,
        "folder": None if folder is None else str(folder.resolve()),
        "workflow": workflow,
    }
    # The child finds the same modules as this process does.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "stratagem.blueprint"],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BrokenRunError(f"the engine took longer than {seconds:g} s") from None
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise BrokenRunError(f"the engine failed: {last[-1]}")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]
