"""Which part of a turn each sampled token belongs to, found on the decoded text and never by encoding it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stratagem.language.offsets import Decode, label, token_ends
from stratagem.spans import Span
from stratagem.tasks.mixture import owner
from stratagem.tasks.structured import Plan
from stratagem.tasks.task import Task


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

    ``text`` is what ``action`` decodes to. The last tokens that add no text (an end token) are of no part.
    """
    spans = [int(Span.NONE)] * len(action)
    label(spans, token_ends(action, text, decode), ((*place, int(span)) for span, place in plan.parts.items()))
    return spans
