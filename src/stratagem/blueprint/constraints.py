"""Constraints that a blueprint declares: predicates ``c(history, action)``, and regions arguments are moved into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import Field

from stratagem.blueprint.actions import Action, History
from stratagem.blueprint.declared import Declared, Name, Reference
from stratagem.blueprint.json_schema import problem
from stratagem.blueprint.regions import Region

Predicate = Callable[[History, Action], bool]
"""Whether an action is allowed after this history. One that raises, or says anything but ``True``, forbids."""


class Forbid(Declared):
    """A tool must not be called; with ``arguments``, not with arguments that fit this JSON schema."""

    kind: Literal["forbid"] = "forbid"
    name: Name
    tool: Name
    arguments: dict[str, Any] | None = None

    def allows(self, history: History, action: Action) -> bool:
        if action.tool != self.tool:
            return True
        return self.arguments is not None and problem(self.arguments, dict(action.arguments)) is not None


class OnlyWith(Declared):
    """A tool may only be called with arguments that fit this JSON schema."""

    kind: Literal["only_with"] = "only_with"
    name: Name
    tool: Name
    arguments: dict[str, Any]

    def allows(self, history: History, action: Action) -> bool:
        return action.tool != self.tool or problem(self.arguments, dict(action.arguments)) is None


class AtMost(Declared):
    """A tool may be called so many times in a run; calls that failed count, too."""

    kind: Literal["at_most"] = "at_most"
    name: Name
    tool: Name
    calls: Annotated[int, Ge(0)]

    def allows(self, history: History, action: Action) -> bool:
        return action.tool != self.tool or sum(turn.action.tool == self.tool for turn in history) < self.calls


class After(Declared):
    """A tool may only be called when a call of another one has succeeded."""

    kind: Literal["after"] = "after"
    name: Name
    tool: Name
    first: Name

    def allows(self, history: History, action: Action) -> bool:
        done = any(turn.action.tool == self.first and turn.result.ok for turn in history)
        return action.tool != self.tool or done


class Custom(Declared):
    """A Python predicate ``(history, action) -> bool``: a reference, or one of this name that the program passes."""

    kind: Literal["predicate"] = "predicate"
    name: Name
    function: Reference | None = None


class Within(Declared):
    """Numeric arguments of a tool are moved to the nearest point of a convex set; the call itself is not forbidden.

    arguments: their names, the coordinates in this order. A call in which one is missing or no number is forbidden.
    """

    kind: Literal["within"] = "within"
    name: Name
    tool: Name
    arguments: Annotated[tuple[Name, ...], MinLen(1)]
    region: Region

    def moved(self, action: Action) -> Action:
        """The action with its arguments in the region; as it is where :meth:`allows` forbids it anyway."""
        if action.tool != self.tool or not self.allows((), action):
            return action
        point = [action.arguments[name] for name in self.arguments]
        nearest = self.region.project(point).tolist()
        if nearest == [float(value) for value in point]:
            return action
        return Action(action.tool, {**action.arguments, **dict(zip(self.arguments, nearest, strict=True))})

    def allows(self, history: History, action: Action) -> bool:
        if action.tool != self.tool:
            return True
        return all(_is_number(action.arguments.get(name)) for name in self.arguments)


Constraint = Annotated[Forbid | OnlyWith | AtMost | After | Custom | Within, Field(discriminator="kind")]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


@dataclass(frozen=True)
class Verdict:
    """What the constraints say of an action.

    violated: names of those that forbid it, in their order.  raised: those of them that failed, with the exception.
    """

    violated: tuple[str, ...] = ()
    raised: Mapping[str, str] | None = None

    @property
    def allowed(self) -> bool:
        """Whether none forbids it."""
        return not self.violated


def judge(predicates: Mapping[str, Predicate], history: History, action: Action) -> Verdict:
    """What named predicates say. One that raises, or answers anything but ``True``, forbids: it fails closed."""
    violated: list[str] = []
    raised: dict[str, str] = {}
    for name, predicate in predicates.items():
        allowed, error = holds(predicate, history, action)
        if error is not None:
            raised[name] = error
        if not allowed:
            violated.append(name)
    return Verdict(tuple(violated), raised or None)


def holds(predicate: Callable[..., object], *arguments: object) -> tuple[bool, str | None]:
    """Whether a predicate says ``True`` of its arguments, and what it raised, in one line; None when it did not."""
    try:
        return predicate(*arguments) is True, None
    except Exception as error:
        return False, " ".join(f"{type(error).__name__}: {error}".split())


def moved(constraints: Sequence[Constraint], action: Action) -> Action:
    """The action with its arguments moved into the regions, one constraint after the other."""
    for constraint in constraints:
        if isinstance(constraint, Within):
            action = constraint.moved(action)
    return action
