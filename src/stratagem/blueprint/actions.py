"""What a policy may do and what came of it: actions, results, turns, and choices between actions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FINISH, ASK = "finish", "ask"
"""Actions every agent has: end with ``{"answer": ...}``, and end by asking a person ``{"question": ...}``."""

Status = Literal["ok", "invalid", "refused", "error", "timeout", "skipped", "running"]
"""Of a result. Not ``ok``: wrong arguments; against a constraint or a budget; raised; too slow; an earlier call that it
needs is not ok; still under way."""


def canonical(value: Any) -> str:
    """JSON text that does not depend on the order of keys. Raises ``TypeError`` or ``ValueError`` for what is no JSON.

    NaN and infinities are none.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Action:
    """A tool by name and its arguments; equal when both are."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.tool} {canonical(dict(self.arguments))}"


@dataclass(frozen=True)
class Result:
    """What a call came to.  value: plain JSON data, when ``ok``.  message: what went wrong, one line."""

    status: Status = "ok"
    value: Any = None
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call did what it was to do."""
        return self.status == "ok"

    def __str__(self) -> str:
        return canonical(self.value) if self.ok else f"{self.status}: {self.message}"


@dataclass(frozen=True)
class Turn:
    """An action that was taken and its result; the history of a run is a sequence of these."""

    action: Action
    result: Result


History = Sequence[Turn]


@dataclass(frozen=True)
class Choices:
    """A categorical policy at one moment: actions with logits, and the thought ``z`` they follow from.

    ``pi(z, a | h) = pi_think(z | h) pi_act(a | h, z)``: the thought was drawn by the policy, it reaches no tool and
    counts as tokens only.

    actions: at least one.  logits: one for each, -inf for never; None: all alike.
    """

    actions: tuple[Action, ...]
    logits: tuple[float, ...] | None = None
    thought: str = ""

    def __post_init__(self) -> None:
        if not self.actions or (self.logits is not None and len(self.logits) != len(self.actions)):
            raise ValueError("choices need at least one action, and one logit for each")
