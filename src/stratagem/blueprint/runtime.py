"""The engine that runs a blueprint: turn after turn with a policy, or its workflow, within budgets and on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from stratagem.blueprint.actions import ASK, FINISH, Action, Result, Turn, canonical
from stratagem.blueprint.audit import AuditLog
from stratagem.blueprint.checks import graph_of
from stratagem.blueprint.context import ContextItem, CountTokens, count_pieces, prune
from stratagem.blueprint.deciding import Decider, Decision, Situation, plain
from stratagem.blueprint.memory import LayeredMemory
from stratagem.blueprint.schema import Blueprint, Node
from stratagem.blueprint.speculation import speculate
from stratagem.errors import InputError

T = TypeVar("T")

Ending = Literal["finished", "asked", "budget", "failed"]


@dataclass(frozen=True)
class Report:
    """What a run came to.

    status: it finished, asks a person, a budget was used up, or the policy failed.  message: why, for the last two.
    answer: what it finished with, or asks; values of the nodes by id after a workflow.
    counts: tool results by status, and ``repaired`` calls.  seconds: by the event loop's clock.
    """

    status: Ending
    answer: Any
    message: str
    history: tuple[Turn, ...]
    entries: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]
    turns: int
    calls: int
    tokens: int
    seconds: float


class _Ended(Exception):
    """The run is over."""

    def __init__(self, status: Ending, answer: Any = None, message: str = "") -> None:
        super().__init__(message)
        self.status, self.answer, self.message = status, answer, message


class Runtime:
    """One run of a blueprint. Build one for each run.

    decider: policy, rules and tools.  memory: is read and written; it may outlive the run.  log: of this run.
    count_tokens: of a text, for the budgets.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        decider: Decider,
        memory: LayeredMemory,
        log: AuditLog,
        count_tokens: CountTokens = count_pieces,
    ) -> None:
        self.blueprint, self.decider, self.memory, self.log = blueprint, decider, memory, log
        self._tools, self._count = decider.toolbox, count_tokens
        self._history: list[Turn] = []
        self._running: list[Action] = []
        self._calls = self._tokens = self._turns = 0

    async def run(self, observation: str = "") -> Report:
        """Let the policy act until it finishes, asks, fails, or a budget is used up."""
        openings = [tool.opening for tool in self._tools.tools.values() if tool.opening is not None]
        observations = [text for text in (observation, *openings) if text]
        return await self._whole(self._turn_after_turn(observations), observation=observation)

    async def run_workflow(self) -> Report:
        """Make the calls of the workflow, those that do not wait for each other at the same time."""
        return await self._whole(self._nodes(), workflow=[node.id for node in self.blueprint.workflow])

    async def _whole(self, work: Awaitable[None], **facts: Any) -> Report:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.log.write("start", goal=self.blueprint.goal, seed=self.decider.seed, **facts)
        end = _Ended("finished")
        try:
            async with asyncio.timeout(self.blueprint.budgets.seconds):
                await work
        except _Ended as ended:
            end = ended
        except TimeoutError:
            end = _Ended("budget", message="seconds")
        counts = {**self._tools.counts, "repaired": self.decider.repaired}
        shown = {"status": end.status, "answer": end.answer, "message": end.message}
        self.log.write("end", **shown, turns=self._turns, calls=self._calls, tokens=self._tokens, counts=counts)
        self.memory.note(f"The run ended: {end.status} {end.message}".rstrip(), 0.0)
        self.memory.end_episode(self.blueprint.goal, end.status)
        return Report(
            **shown,
            history=tuple(self._history),
            entries=tuple(self.log.entries),
            counts=counts,
            turns=self._turns,
            calls=self._calls,
            tokens=self._tokens,
            seconds=loop.time() - begun,
        )

    # ---- a policy --------------------------------------------------------------------------------------------------

    async def _turn_after_turn(self, observations: list[str]) -> None:
        budgets = self.blueprint.budgets
        for text in observations:
            self.memory.note(text)
        while True:
            if self._turns >= budgets.turns:
                raise _Ended("budget", message="turns")
            situation = self._situation(observations)
            done = await speculate(self._decided(situation), self._foreseen(situation), self._made)
            self._turns += 1
            self._learned(done.decision, done.result, done.hit)

    async def _decided(self, situation: Situation) -> Action:
        try:
            decision = await self.decider.decide(situation)
        except Exception as error:
            raise _Ended("failed", message=" ".join(f"the policy: {type(error).__name__}: {error}".split())) from error
        self._tokens += self._count(decision.thought) + self._count(str(decision.action))
        self.log.write("decision", **decision.facts)
        self._check_end(decision)
        return decision.action

    def _check_end(self, decision: Decision) -> None:
        action = decision.action
        fault = None if decision.chosen is None else decision.candidates[decision.chosen].prepared.fault
        if action.tool == FINISH and fault is None:
            self._turns += 1
            raise _Ended("finished", action.arguments.get("answer"))
        if action.tool == ASK:
            self._turns += 1
            raise _Ended("asked", action.arguments.get("question"))

    def _foreseen(self, situation: Situation) -> Action | None:
        """A call to begin early; none when it could use up the last one there is."""
        calls = self.blueprint.budgets.calls
        if calls is not None and calls - self._calls < 2:
            return None
        try:
            return self.decider.foreseen(situation)
        except Exception as error:
            self.log.write("prediction_failed", turn=situation.turn, message=f"{type(error).__name__}: {error}")
            return None

    def _learned(self, action: Action, result: Result, hit: bool | None) -> None:
        self._history.append(Turn(action, result))
        self.log.write("result", turn=self._turns - 1, **_facts(action, result), speculation=hit)
        self.memory.note(f"{action} -> {result}", 0.2 if result.ok else 1.0)
        if result.status == "refused":
            raise _Ended("budget", message="calls")

    # ---- what it is told -------------------------------------------------------------------------------------------

    def _situation(self, observations: list[str]) -> Situation:
        budgets = self.blueprint.budgets
        try:
            items = prune(self._items(observations), budgets.context_tokens)
        except InputError as error:
            raise _Ended("budget", message=str(error)) from None
        tokens = sum(item.tokens for item in items)
        if budgets.tokens is not None and self._tokens + tokens > budgets.tokens:
            raise _Ended("budget", message="tokens")
        self._tokens += tokens
        context = tuple(item.text for item in items)
        return Situation(self.blueprint.goal, context, tuple(self._history), self.blueprint.tools, self._turns)

    def _items(self, observations: list[str]) -> list[ContextItem]:
        """Goal, tools and observations stay; insights and turns are worth less the less they match or the older."""
        tools = [f"Tool {tool.name}: {tool.description} {canonical(tool.input)}" for tool in self.blueprint.tools]
        items = [self._item(text, pinned=True) for text in (f"Goal: {self.blueprint.goal}", *tools, *observations)]
        query = " ".join((self.blueprint.goal, *observations))
        recalled = self.memory.retrieve(query) if self.blueprint.evolution.level else []
        items += [self._item(f"Insight: {one.text}", one.score) for one in recalled]
        last = len(self._history) - 1
        items += [
            self._item(f"{turn.action} -> {turn.result}", 0.9 ** (last - place))
            for place, turn in enumerate(self._history)
        ]
        return items

    def _item(self, text: str, score: float = 0.0, pinned: bool = False) -> ContextItem:
        return ContextItem(text, self._count(text), score, pinned)

    # ---- calls -----------------------------------------------------------------------------------------------------

    async def _made(self, action: Action) -> Result:
        """A call within the budget."""
        calls = self.blueprint.budgets.calls
        if calls is not None and self._calls >= calls:
            return Result("refused", message="the budget of calls is used up")
        self._calls += 1
        return await self._tools.call(action)

    async def _nodes(self) -> None:
        nodes = {node.id: node for node in self.blueprint.workflow}
        graph = graph_of(self.blueprint.workflow)
        values: dict[str, Result] = {}

        async def start(name: str) -> Result:
            missing = [other for other in graph.after[name] if not values[other].ok]
            if missing:
                result = Result("skipped", message=f"comes after {missing[0]}, which is {values[missing[0]].status}")
                self.log.write("result", node=name, **_facts(Action(nodes[name].tool), result))
            else:
                result = await self._node(nodes[name], values)
            values[name] = result
            return result

        await graph.run(start, self.blueprint.budgets.workers)
        answer = {name: result.value for name, result in values.items() if result.ok}
        failed = [name for name in nodes if not values[name].ok]
        if failed:
            raise _Ended("failed", answer, f"nodes that are not ok: {', '.join(failed)}")
        raise _Ended("finished", answer)

    async def _node(self, node: Node, values: Mapping[str, Result]) -> Result:
        """One call of the workflow; what is under way counts as history, though not as having succeeded."""
        action = Action(node.tool, filled(node.arguments, values))
        under_way = [Turn(other, Result("running")) for other in self._running]
        candidate = self.decider.rules.candidate(self._tools, [*self._history, *under_way], action)
        verdict, action = candidate.verdict, candidate.action
        self.decider.repaired += candidate.prepared.repaired
        raised = dict(verdict.raised or {})
        self.log.write("call", node=node.id, action=plain(action), violated=list(verdict.violated), raised=raised)
        if verdict.allowed:
            self._running.append(action)
            try:
                result = await self._made(action)
            finally:
                self._running.remove(action)
        else:
            result = Result("refused", message=f"against {', '.join(verdict.violated)}")
        self._history.append(Turn(action, result))
        self.log.write("result", node=node.id, **_facts(action, result))
        self.memory.note(f"{action} -> {result}", 0.2 if result.ok else 1.0)
        return result


def _facts(action: Action, result: Result) -> dict[str, Any]:
    return {"input": plain(action), "status": result.status, "output": result.value, "message": result.message}


def filled(value: Any, values: Mapping[str, Result]) -> Any:
    """Arguments with the values of the nodes that they mention."""
    if isinstance(value, dict):
        if value.keys() == {"$node"} and value["$node"] in values:
            return values[value["$node"]].value
        return {name: filled(item, values) for name, item in value.items()}
    return [filled(item, values) for item in value] if isinstance(value, list) else value
