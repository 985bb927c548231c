"""Policies for agents out of what answers with text, such as a language model."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from stratagem.blueprint.actions import ASK, FINISH, Action, Choices
from stratagem.blueprint.deciding import Situation
from stratagem.tasks.tool_calls import read_call

Messages = Sequence[dict[str, str]]

_FORMAT = (
    f"Think first, then write one action on the last line: the tool's name and its arguments as a JSON object. "
    f'To end, write {FINISH} {{"answer": ...}}; to ask a person, {ASK} {{"question": ...}}.'
)


@dataclass(frozen=True)
class TextPolicy:
    """Asks for text and reads it: the last line is the action, ``NAME {"argument": ...}``, all before it the thought.

    complete: one or several replies to a conversation. Several are a categorical policy: the empirical distribution of
    the actions they end with, which then is projected. Text that is no action is a call of a tool that there is not: it
    counts as ``invalid`` and the policy reads so in the next turn.
    """

    complete: Callable[[Messages], str | Sequence[str] | Awaitable[str | Sequence[str]]]

    async def __call__(self, situation: Situation) -> Choices:
        messages = [
            {"role": "system", "content": _FORMAT},
            {"role": "user", "content": "\n".join(situation.context)},
        ]
        answer = self.complete(messages)
        said = await answer if inspect.isawaitable(answer) else answer
        replies = [said] if isinstance(said, str) else list(said)
        read = [self._read(reply) for reply in replies]
        actions = list({str(action): action for _, action in read}.values())
        times = Counter(str(action) for _, action in read)
        thought = next((thought for thought, _ in read if thought), "")
        return Choices(tuple(actions), tuple(math.log(times[str(action)]) for action in actions), thought)

    @staticmethod
    def _read(reply: str) -> tuple[str, Action]:
        thought, _, last = reply.strip().rpartition("\n")
        call = read_call(last)
        return thought.strip(), Action(call.name, dict(call.arguments))
