"""The function_calls task: think, then write the calls that a request needs, of which some need none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.spans import Span
from stratagem.tasks.call_syntax import CallError, Tool, WantedCall, read_calls, same_calls, written
from stratagem.tasks.call_tools import TOOLS, ask
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.structured import Plan
from stratagem.tasks.tags import in_form
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

Category = Literal["single", "multiple", "parallel", "none"]

CATEGORIES: tuple[Category, ...] = ("single", "multiple", "parallel", "none")
"""One call and one tool; one call and several tools; two or three calls; and no tool that fits."""

_OPENING, _CLOSING = "<think>", "</think>"
_BARE_CALL = re.compile(r"^[\w.]+\s*\(")


class Request(NamedTuple):
    """What is asked for, with which tools, and the calls that are right."""

    category: Category
    text: str
    tools: tuple[str, ...]
    calls: tuple[WantedCall, ...]


@dataclass(frozen=True)
class FunctionCallsTask(Task):
    """Answer a request with calls of tools, after a thought:

        <think>weather in Oslo, tomorrow</think>[get_weather(city='Oslo', day='tomorrow')]

    There are twelve tools with typed parameters, some of them optional. The reward is 1 when the turn is in form and
    its calls are right, else 0 (arXiv 2508.05118). In form: one thought, first, and behind it a list of calls. Right:
    the calls that are wanted, each as often as it is and in any order, with the arguments of
    :func:`stratagem.tasks.call_syntax.same_call`. Where no tool fits, ``[]`` and words without a call are right.
    ``format`` and ``calls`` note form and calls apart and pay nothing.

    Calls are read as a syntax tree; nothing that a policy writes is ever run. How calls are compared was not available
    of the paper: it is the practice of evaluating them by their syntax tree. The requests are our own.

    ``category``: ``single`` (one call, one tool), ``multiple`` (one call, several tools), ``parallel`` (two or three
    calls), ``none`` (no tool fits); ``mixed`` is each in turn. ``distractors``: tools that are offered and not needed,
    0 to 9; a ``single`` one has none, and where no tool fits there is at least one. ``max_new_tokens``: 1 to 100,000.
    """

    category: Literal["mixed", "single", "multiple", "parallel", "none"] = "mixed"
    distractors: Annotated[int, Field(ge=0, le=9)] = 3
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128

    name = "function_calls"
    description = "think, then call the tools that a request needs, with the right arguments, or none"
    system = (
        "Think in `<think>...</think>`, then write the calls that the request needs as a list, such as "
        "`[add_numbers(numbers=[1, 2]), set_alarm(hour=7)]`. Write `[]` when no tool fits."
    )
    reward_names = ("reward", "format", "calls")
    reward_weights = (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> FunctionCallsEnvironment:
        return FunctionCallsEnvironment(self.request(split, index))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """A thought that names the tools, then the calls."""
        calls = self.request(split, index).calls
        named = ", then ".join(call.name for call in calls) or "no tool fits"
        yield f"{_OPENING}{named}{_CLOSING}[{', '.join(call.written() for call in calls)}]"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: the thought left open, a call too many, a call too few, and no thought.

        Where no call is wanted, too few is one without brackets.
        """
        (right,) = self.solution(split, index)
        request = self.request(split, index)
        thought, answer = right.split(_CLOSING)
        calls = [call.written() for call in request.calls]
        again = calls[0] if calls else f"{request.tools[0]}()"
        fewer = f"[{', '.join(calls[1:])}]" if calls else again
        misses = (
            f"{thought}{answer}",
            f"{thought}{_CLOSING}[{', '.join([*calls, again])}]",
            f"{thought}{_CLOSING}{fewer}",
            answer,
        )
        yield misses[index // len(CATEGORIES) % len(misses)]

    def answer(self, text: str) -> str | None:
        """The calls, in one form and in order of the alphabet; None where none can be read."""
        found = _parts(text)
        try:
            return repr(sorted(map(written, read_calls(found.answer, TOOLS))))
        except CallError:
            return None

    def plan(self, text: str) -> Plan:
        """The thought, from its opening tag on, to the end where it is never closed; and what follows it."""
        found = _parts(text)
        parts = {Span.THINK: found.thought, Span.ACTION: found.place}
        return Plan({span: place for span, place in parts.items() if place[0] < place[1]}, False, found.answer or None)

    def request(self, split: Split, index: int) -> Request:
        """The request of this episode."""
        category = CATEGORIES[index % len(CATEGORIES)] if self.category == "mixed" else self.category
        return draw(
            split,
            index,
            (self.name, category, self.distractors),
            lambda random: _request(random, category, self.distractors),
            lambda request: state_key(self.name, request.text),
        )


class FunctionCallsEnvironment(Environment):
    """One request and one turn."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tools: Mapping[str, Tool] = {name: TOOLS[name] for name in request.tools}

    def reset(self) -> Observation:
        offered = "\n".join(tool.signature for tool in self.tools.values())
        return self._observe(f"Tools:\n{offered}\n\nRequest: {self.request.text}")

    def step(self, action: str) -> Step:
        formed, right = well_formed(action), self._right(_parts(action).answer)
        return Step(
            self._observe("the end"),
            float(formed and right),
            done=True,
            success=formed and right,
            components={"format": float(formed), "calls": float(right)},
            well_formed=formed,
        )

    def _right(self, answer: str) -> bool:
        try:
            return same_calls(read_calls(answer, self.tools), self.request.calls, self.tools)
        except CallError:
            return not self.request.calls and _abstains(answer)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("function_calls", self.request.text, self.request.tools, text))


def well_formed(text: str) -> bool:
    """Whether a turn is one thought, first and closed, and something behind it: a list that can be read, or words."""
    if not text.strip().startswith(_OPENING) or text.count(_OPENING) > 1 or not in_form([text], ["think"]):
        return False
    answer = _parts(text).answer
    try:
        read_calls(answer, TOOLS)
    except CallError:
        return _abstains(answer)
    return True


def from_spec(argument: str | None, options: Mapping[str, str]) -> FunctionCallsTask:
    """``function_calls[:category=mixed,distractors=3,max_new_tokens=128]``."""
    return configure(FunctionCallsTask, argument, options)


class _Parts(NamedTuple):
    """Where the thought of a turn lies and where what follows it, and the latter's text without the space around it."""

    thought: tuple[int, int]
    place: tuple[int, int]
    answer: str


def _parts(text: str) -> _Parts:
    opened = text.find(_OPENING)
    begin = 0 if opened < 0 else opened + len(_OPENING)
    close = text.find(_CLOSING, begin) if opened >= 0 else -1
    if opened < 0:
        return _Parts((0, 0), (0, len(text)), text.strip())
    if close < 0:
        return _Parts((begin, len(text)), (len(text), len(text)), "")
    after = close + len(_CLOSING)
    return _Parts((begin, close), (after, len(text)), text[after:].strip())


def _abstains(answer: str) -> bool:
    """Whether a text that is no list of calls makes none: words, not a list that went wrong or a call without one."""
    return bool(answer) and "[" not in answer and not _BARE_CALL.match(answer)


def _request(random: Random, category: Category, distractors: int) -> Request:
    if category == "parallel":
        count = random.choice((2, 3))
        named = [random.choice(list(TOOLS)) for _ in range(count)]
    else:
        named = [random.choice(list(TOOLS))]
    asked = [ask(name, random) for name in named]
    others = [name for name in TOOLS if name not in named]
    fewest = 1 if category in ("multiple", "none") else 0
    beside = random.sample(others, 0 if category == "single" else min(len(others), max(distractors, fewest)))
    offered = [*beside, *([] if category == "none" else dict.fromkeys(named))]
    random.shuffle(offered)
    calls = () if category == "none" else tuple(one.call for one in asked)
    return Request(category, " ".join(one.text for one in asked), tuple(offered), calls)
