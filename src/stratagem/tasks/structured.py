"""Any text task with turns that state, beside the action, a sub-goal and whether to switch to a new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stratagem.errors import InputError
from stratagem.spans import Span
from stratagem.tasks.mixture import HabitualDemonstrator
from stratagem.tasks.task import Environment, Observation, Split, Step, Task

TAGS = {Span.SWITCH: "switch", Span.SUBGOAL: "subgoal", Span.ACTION: "action"}
"""Tags of the parts of a turn, in the order in which they must stand."""

HINT = (
    "Answer each turn as <switch>KEEP</switch><subgoal>what you are after</subgoal><action>what you do</action>. "
    "Write SWITCH instead of KEEP when you change the subgoal, and repeat the subgoal while you keep it."
)


@dataclass(frozen=True)
class Plan:
    """What the text of a turn says.

    parts: where the text of each part lies, as first character and end; a part that cannot be read is not in it.
    switches: whether the turn switches to a new sub-goal.  action: the text of the action, None where it has none.
    """

    parts: Mapping[Span, tuple[int, int]]
    switches: bool
    action: str | None

    def complete(self, first: bool = False) -> bool:
        """Whether nothing is missing: a turn that keeps its sub-goal need not repeat it, unless it is the first."""
        needed = {Span.SWITCH, Span.ACTION} | ({Span.SUBGOAL} if first or self.switches else set())
        return needed <= self.parts.keys()


def read_plan(text: str) -> Plan:
    """The plan of a turn's text.

    A part can be read when its opening and closing tag stand once each, in this order and behind the parts before it,
    and something lies between them; of ``switch``, KEEP or SWITCH. Space around it belongs to it. Without a switch that
    can be read the turn keeps its sub-goal.
    """
    parts: dict[Span, tuple[int, int]] = {}
    end = 0
    for span, tag in TAGS.items():
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            continue
        begin, close = text.index(opening) + len(opening), text.index(closing)
        said = text[begin:close].strip()
        if begin - len(opening) < end or not said or (span is Span.SWITCH and said not in ("KEEP", "SWITCH")):
            continue
        parts[span] = begin, close
        end = close + len(closing)
    read = {span: text[slice(*place)].strip() for span, place in parts.items()}
    return Plan(parts, read.get(Span.SWITCH) == "SWITCH", read.get(Span.ACTION))


class StructuredEnvironment(Environment):
    """An environment that is shown the action alone; without one that can be read, an empty action.

    ``malformed`` counts turns whose plan is not complete.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        return self._environment.reset()

    def step(self, action: str) -> Step:
        plan, first = read_plan(action), self._turn == 0
        self._turn += 1
        step = self._environment.step(plan.action or "")
        if plan.complete(first):
            return step
        return replace(step, components={**step.components, "malformed": 1.0}, well_formed=False)

    def close(self) -> None:
        self._environment.close()


class StructuredTask(Task):
    """``of``, with turns of the form ``<switch>KEEP|SWITCH</switch><subgoal>..</subgoal><action>..</action>``.

    The system message explains the form, and ``</action>`` ends a turn. ``plan`` says where the parts of a turn lie, by
    which its tokens are labelled. A further reward ``malformed`` notes turns whose form is not right and pays nothing.

    of: the task, whose ``subgoals`` its solutions state.  room: tokens a turn may have more than in that task.

    Raises :class:`InputError` for a task that has such a reward already.
    """

    description = "another task, whose turns state a sub-goal beside the action"

    def __init__(self, of: Task, room: int = 64) -> None:
        if "malformed" in of.reward_names:
            raise InputError(f"task {of.name!r}: already has a reward 'malformed' and cannot be structured")
        self.of = of
        self.name = f"structured:{of.name}"
        self.max_turns, self.max_new_tokens = of.max_turns, of.max_new_tokens + room
        self.stop = ("</action>",)
        self.system = HINT if of.system is None else f"{of.system} {HINT}"
        weights = (1.0,) * len(of.reward_names) if of.reward_weights is None else of.reward_weights
        self.reward_names, self.reward_weights = (*of.reward_names, "malformed"), (*weights, 0.0)

    def environment(self, split: Split, index: int) -> StructuredEnvironment:
        return StructuredEnvironment(self.of.environment(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self._planned(split, index, self.of.solution(split, index))

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self._planned(split, index, self.of.corrupted(split, index))

    def demonstration(self, split: Split, index: int, habit: float, seed: int) -> Iterator[str]:
        """What the other task's demonstrator does, with its habit where it has one."""
        if isinstance(self.of, HabitualDemonstrator):
            return self._planned(split, index, self.of.demonstration(split, index, habit, seed))
        return self.solution(split, index)

    def answer(self, text: str) -> str | None:
        action = read_plan(text).action
        return None if action is None else self.of.answer(action)

    def plan(self, text: str) -> Plan:
        return read_plan(text)

    def _planned(self, split: Split, index: int, actions: Iterator[str]) -> Iterator[str]:
        """A turn for each action; it switches where the sub-goal is another one than before."""
        taken = list(actions)
        last = None
        for goal, action in zip(self.of.subgoals(split, index, taken), taken, strict=True):
            switch = "KEEP" if goal == last else "SWITCH"
            last = goal
            yield f"<switch>{switch}</switch><subgoal>{goal}</subgoal><action>{action}</action>"


def from_spec(argument: str | None, options: Mapping[str, Any]) -> StructuredTask:
    """``structured:TASK[,option=value]``; the options are those of the task."""
    from stratagem.tasks.registry import make  # which knows this module by name

    if argument is None:
        raise InputError("task structured needs another task, such as structured:key_door")
    further = [f"{name}={value}" for name, value in options.items()]
    task = make(",".join([argument, *further]))
    if not isinstance(task, Task):
        raise InputError(f"task structured:{argument}: is not played in text")
    return StructuredTask(task)
