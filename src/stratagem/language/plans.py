"""Which part of a turn each sampled token belongs to, found on the decoded text and never by encoding it again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stratagem.spans import Span
from stratagem.tasks.mixture import owner
from stratagem.tasks.structured import Plan
from stratagem.tasks.task import Task

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class PlanReader:
    """Reads the plans of a task's turns.

    task: whose turns they are.  decode: the text of tokens, as an environment is shown it.
    """

    task: Task
    decode: Decode

    def __call__(self, index: int, action: Sequence[int]) -> tuple[list[int], bool]:
        """Span of each token of a turn in episode ``index``, and whether the turn switches to a new sub-goal.

        Turns of a task without plans are all action.
        """
        text = self.decode(action)
        plan = owner(self.task, index).plan(text)
        if plan is None:
            return [int(Span.ACTION)] * len(action), False
        return token_spans(action, text, plan, self.decode), plan.switches


def plan_reader(task: Task, decode: Decode) -> PlanReader | None:
    """Who reads the plans of this task; None where no turn of it has one."""
    return PlanReader(task, decode) if task.plan("") is not None else None


def token_spans(action: Sequence[int], text: str, plan: Plan, decode: Decode) -> list[int]:
    """The span of each token: that of the part in which one of its characters lies, if any.

    ``text`` is what ``action`` decodes to. A token ends where the text of all tokens up to it agrees with it no more.
    One that adds no text is the beginning of what the next one adds (the first bytes of a character); the last ones
    (an end token) are of no part.
    """
    ends = [_agreed(decode(action[: place + 1]), text) for place in range(len(action))]
    spans = [int(Span.NONE)] * len(action)
    for span, (begin, end) in plan.parts.items():
        # From the first token that ends behind the part's first character to the first that ends at its end.
        first, last = bisect_right(ends, begin), bisect_left(ends, end)
        spans[first : last + 1] = [int(span)] * (last + 1 - first)
    following = int(Span.NONE)
    for place in range(len(action) - 1, -1, -1):
        adds = ends[place] > (ends[place - 1] if place else 0)
        following = spans[place] = spans[place] if adds else following
    return spans


def _agreed(said: str, text: str) -> int:
    """How far ``said`` is how ``text`` begins: all of it, but for what stands for a character's first bytes."""
    length = len(said)
    while not text.startswith(said[:length]):
        length -= 1
    return length
