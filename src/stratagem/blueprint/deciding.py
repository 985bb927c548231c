"""One decision: what the policy proposes, as it would be executed, projected on what the constraints allow, drawn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from stratagem.blueprint.actions import ASK, FINISH, Action, Choices, History, Turn, canonical
from stratagem.blueprint.constraints import Constraint, Custom, Predicate, Verdict, judge, moved
from stratagem.blueprint.projection import drawn, project
from stratagem.blueprint.references import resolve
from stratagem.blueprint.schema import Blueprint, ToolSpec
from stratagem.blueprint.tools import Prepared, Toolbox
from stratagem.errors import InputError
from stratagem.seeding import generator


@dataclass(frozen=True)
class Situation:
    """What a policy is told.

    context: what fits into its prompt, most lasting first: goal, tools, observation, insights, turns.
    history: all turns.  tools: that may be named, beside ``finish`` and ``ask``.  turn: from 0.
    """

    goal: str
    context: tuple[str, ...]
    history: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...]
    turn: int


AgentPolicy = Callable[[Situation], Choices | Action | Awaitable[Choices | Action]]
"""What decides. It may also have ``predict(situation) -> Action | None``, a cheap guess that lets a call begin early,
and ``repair(action, fault) -> Action | None``."""


@dataclass(frozen=True)
class Candidate:
    """An action as it would be executed, and what is said of it."""

    prepared: Prepared
    verdict: Verdict

    @property
    def action(self) -> Action:
        return self.prepared.action


@dataclass(frozen=True)
class Decision:
    """What was decided.  chosen: place among the candidates; None: nothing is allowed, and the fallback stands."""

    action: Action
    thought: str
    candidates: tuple[Candidate, ...]
    chosen: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Rules:
    """The constraints of a blueprint, ready to be asked."""

    constraints: tuple[Constraint, ...]
    predicates: Mapping[str, Predicate]

    @classmethod
    def of(cls, blueprint: Blueprint, given: Mapping[str, Predicate] | None = None, folder: Any = None) -> Rules:
        """With the predicates the program passes, by name. Raises :class:`InputError` for one that is missing."""
        predicates: dict[str, Predicate] = {}
        for constraint in blueprint.constraints:
            if not isinstance(constraint, Custom):
                predicates[constraint.name] = constraint.allows
            elif constraint.function is not None:
                predicates[constraint.name] = resolve(constraint.function, folder)
            elif given is not None and constraint.name in given:
                predicates[constraint.name] = given[constraint.name]
            else:
                raise InputError(f"constraint {constraint.name!r}: the program must pass a predicate for it")
        return cls(blueprint.constraints, predicates)

    def candidate(self, toolbox: Toolbox, history: History, action: Action) -> Candidate:
        """An action repaired where it needs it, moved into the regions, and judged: in this order, so that what is
        judged is what would be executed."""
        prepared = _prepared(toolbox, action)
        if prepared.fault is None:
            inside = moved(self.constraints, prepared.action)
            if inside is not prepared.action:
                prepared = Prepared(inside, toolbox.fault(inside), prepared.repaired)
        return Candidate(prepared, judge(self.predicates, history, prepared.action))


def _prepared(toolbox: Toolbox, action: Action) -> Prepared:
    if action.tool not in (FINISH, ASK):
        return toolbox.prepare(action)
    try:
        canonical(dict(action.arguments))
    except (TypeError, ValueError) as error:
        return Prepared(Action(action.tool), f"arguments are no JSON: {error}")
    return Prepared(action)


@dataclass
class Decider:
    """Asks a policy and draws from its projection; number ``turn`` of ``seed`` decides what is drawn."""

    blueprint: Blueprint
    policy: AgentPolicy
    rules: Rules
    toolbox: Toolbox
    seed: int
    repaired: int = field(default=0, init=False)

    async def decide(self, situation: Situation) -> Decision:
        """What is done next. Raises whatever the policy raises, and :class:`InputError` for logits that are none."""
        answer: Any = self.policy(situation)
        if inspect.isawaitable(answer):
            answer = await answer
        choices = Choices((answer,)) if isinstance(answer, Action) else answer
        if not isinstance(choices, Choices):
            raise InputError(f"the policy must give an action or choices, not {type(answer).__name__}")
        candidates = tuple(self.rules.candidate(self.toolbox, situation.history, action) for action in choices.actions)
        return self._drawn(choices, candidates, situation.turn)

    def foreseen(self, situation: Situation) -> Action | None:
        """The call that the policy guesses it will make, where it may be begun: sound, allowed, no side effects."""
        predict = getattr(self.policy, "predict", None)
        guess = None if predict is None else predict(situation)
        if guess is None or guess.tool not in self.toolbox.tools or not self.toolbox.tools[guess.tool].speculative:
            return None
        candidate = self.rules.candidate(self.toolbox, situation.history, guess)
        return candidate.action if candidate.verdict.allowed and candidate.prepared.fault is None else None

    def _drawn(self, choices: Choices, candidates: tuple[Candidate, ...], turn: int) -> Decision:
        said = [0.0] * len(candidates) if choices.logits is None else list(choices.logits)
        logits = torch.tensor(said, dtype=torch.float64) / self.blueprint.policy.temperature
        allowed = torch.tensor([candidate.verdict.allowed for candidate in candidates])
        projected = project(logits, allowed)
        logp = projected.logp.tolist()
        chosen = None
        if not bool(projected.empty):
            if self.blueprint.policy.greedy:
                chosen = int(projected.logp.argmax())
            else:
                source = generator(self.seed, "action", turn)
                chosen = drawn(logp, float(torch.rand((), dtype=torch.float64, generator=source)))
        action = self._fallback(candidates) if chosen is None else candidates[chosen].action
        facts = {
            "turn": turn,
            "thought": choices.thought,
            "candidates": [_row(*row) for row in zip(candidates, logits.tolist(), logp, strict=True)],
            "allowed_mass": float(projected.mass),
            "chosen": chosen,
            "action": plain(action),
        }
        self.repaired += chosen is not None and candidates[chosen].prepared.repaired
        return Decision(action, choices.thought, candidates, chosen, facts)

    def _fallback(self, candidates: tuple[Candidate, ...]) -> Action:
        null = self.blueprint.fallback
        if null is not None:
            return Action(null.tool, null.arguments)
        names = dict.fromkeys(name for candidate in candidates for name in candidate.verdict.violated)
        return Action(ASK, {"question": f"no action is allowed by {', '.join(names) or 'the policy'}; what is to do?"})


def plain(action: Action) -> dict[str, Any]:
    """An action as plain data."""
    return {"tool": action.tool, "arguments": dict(action.arguments)}


def _row(candidate: Candidate, logit: float, logp: float) -> dict[str, Any]:
    return {
        "action": plain(candidate.action),
        "logit": _number(logit),
        "logp": _number(logp),
        "violated": list(candidate.verdict.violated),
        "raised": dict(candidate.verdict.raised or {}),
        "fault": candidate.prepared.fault,
        "repaired": candidate.prepared.repaired,
    }


def _number(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
