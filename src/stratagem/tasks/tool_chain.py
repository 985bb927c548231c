"""The tool-chain task: calls to make in order, with arguments copied from the request and from earlier results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.answers import normalised, token_f1
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key
from stratagem.tasks.tool_calls import ToolCall, read_call, turn_worth

_WORDS = {
    "person": ("ana", "ben", "cleo", "dan", "eva", "finn", "gus", "hana"),
    "city": ("oslo", "rome", "lima", "cairo", "delhi", "quito", "paris", "seoul"),
    "item": ("lamp", "desk", "pen", "book", "chair", "mug", "rug", "vase"),
    "number": tuple(str(number) for number in range(10, 100)),
}
"""What there is of every kind."""


class Tool(NamedTuple):
    """The kinds of its arguments by name, and of its result."""

    arguments: Mapping[str, str]
    result: str


TOOLS = {
    "home": Tool({"person": "person"}, "city"),
    "wish": Tool({"person": "person"}, "item"),
    "mayor": Tool({"city": "city"}, "person"),
    "weather": Tool({"city": "city"}, "number"),
    "price": Tool({"item": "item", "city": "city"}, "number"),
    "carrier": Tool({"item": "item", "target": "city"}, "person"),
}
"""The tools by name."""

_RESULT = "#"
"""Begins an argument of a request that is an earlier call's result, by number."""


class Chain(NamedTuple):
    """A request: calls, whose arguments may be ``#k``, the result of call ``k``; and the world they are made in."""

    calls: tuple[ToolCall, ...]
    world: int

    def __str__(self) -> str:
        return "; ".join(
            " ".join([str(number), call.name, *(f"{name}={value}" for name, value in call.arguments.items())])
            for number, call in enumerate(self.calls, 1)
        )

    def carried_out(self) -> tuple[tuple[ToolCall, str], ...]:
        """The calls as they have to be made, and what each returns."""
        done: list[tuple[ToolCall, str]] = []
        for call in self.calls:
            arguments = {
                name: done[int(value[1:]) - 1][1] if value.startswith(_RESULT) else value
                for name, value in call.arguments.items()
            }
            made = ToolCall(call.name, arguments)
            done.append((made, result(made, self.world)))
        return tuple(done)


@dataclass(frozen=True)
class ToolChainTask(Task):
    """Make the calls of a request, in its order, and answer with the result of the last.

        1 home person=ana; 2 price item=lamp city=#1

    asks for ``call: home {"person": "ana"}``, whose result is the next observation (``oslo``), then for
    ``call: price {"item": "lamp", "city": "oslo"}`` and for ``answer: 23``, which ends the episode. Every line of a
    turn that begins with ``call:`` is a call; calls beside an answer are not made. A call that no tool understands
    returns ``error: `` and why; a turn with neither call nor answer is told what to write. What tools return differs
    from episode to episode. Success: exactly these calls in this order, and the right answer.

    ``reward``: ``hard``, ``greedy`` or ``soft`` pays every turn the mean worth of its calls, as all calls so far are
    matched with those of the request (:func:`~stratagem.tasks.tool_calls.matched`), whatever their order; so what a
    turn earned is known when the episode ends. The answer earns its F1 (arXiv 2601.10712). ``outcome`` pays the answer
    alone. ``trace`` (1 for exactly the calls of the request in its order) and ``answer`` (its F1) are noted and count
    nothing in the return.

    ``fewest``, ``most``: calls of a request, 1 to 12. ``max_turns``: more than ``most``, up to 64. ``max_new_tokens``:
    of a turn, 1 to 100,000. Tools, requests and wording are our own.

    Every call of a request but the first copies an earlier result.

    Raises :class:`InputError` for a number out of range.
    """

    fewest: Annotated[int, Field(ge=1, le=12)] = 3
    most: Annotated[int, Field(ge=1, le=12)] = 6
    reward: Literal["hard", "greedy", "soft", "outcome"] = "hard"
    max_turns: Annotated[int, Field(ge=2, le=64)] = 8
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64

    name = "tool_chain"
    description = "make a chain of tool calls with copied arguments and answer with the last result"
    system = (
        'Make the calls one after the other, as in `call: price {"item": "lamp", "city": "oslo"}`; '
        "`#1` stands for what call 1 returned. Then answer with the last result, as in `answer: 23`."
    )
    reward_names = ("reward", "trace", "answer")
    reward_weights = (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        if self.fewest > self.most:
            raise InputError(f"task {self.name!r}: fewest={self.fewest} is not allowed; most={self.most} is less")
        if self.max_turns <= self.most:
            raise InputError(
                f"task {self.name!r}: max_turns={self.max_turns} is not allowed; "
                f"it should be more than most={self.most}"
            )

    def environment(self, split: Split, index: int) -> ToolChainEnvironment:
        return ToolChainEnvironment(self.chain(split, index), self.max_turns, self.reward)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Call after call, then the answer."""
        done = self.chain(split, index).carried_out()
        for call, _ in done:
            yield _written(call)
        yield f"answer: {done[-1][1]}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """By number, in turn: another answer, the first call left out, the first call made twice."""
        *calls, answer = self.solution(split, index)
        misses = ((*calls, f"{answer}0"), (*calls[1:], answer), (calls[0], *calls, answer))
        yield from misses[index % len(misses)]

    def answer(self, text: str) -> str | None:
        """What is written after ``answer:``."""
        _, answer = _read(text)
        return None if answer is None else normalised(answer) or None

    def chain(self, split: Split, index: int) -> Chain:
        """The request of this episode, and its world. Equal requests are in one split."""
        return draw(
            split,
            index,
            (self.name, self.fewest, self.most),
            self._generate,
            lambda chain: state_key(self.name, str(chain)),
        )

    def _generate(self, random: Random) -> Chain | None:
        calls: list[ToolCall] = []
        for _ in range(random.randint(self.fewest, self.most)):
            name = random.choice([name for name, tool in TOOLS.items() if _follows(tool, calls)])
            arguments = {argument: _argument(random, kind, calls) for argument, kind in TOOLS[name].arguments.items()}
            calls.append(ToolCall(name, arguments))
        chain = Chain(tuple(calls), random.getrandbits(48))
        made = [call for call, _ in chain.carried_out()]
        return None if any(made.count(call) > 1 for call in made) else chain


class ToolChainEnvironment(Environment):
    """One request. A state is the request, its world and the calls that were made."""

    def __init__(self, chain: Chain, max_turns: int, reward: Literal["hard", "greedy", "soft", "outcome"]) -> None:
        self.chain = chain
        self.max_turns = max_turns
        self.reward = reward
        done = chain.carried_out()
        self._reference = [call for call, _ in done]
        self._gold = done[-1][1]
        self._turns: list[list[ToolCall]] = []

    def reset(self) -> Observation:
        self._turns = []
        return self._observe(str(self.chain))

    def step(self, action: str) -> Step:
        calls, answer = _read(action)
        self._turns.append(calls if answer is None else [])
        f1 = 0.0 if answer is None else token_f1(answer, self._gold)
        out_of_turns = answer is None and len(self._turns) >= self.max_turns
        done = answer is not None or out_of_turns
        trace = [call for turn in self._turns for call in turn] == self._reference
        return Step(
            self._observe(self._told(calls, answer)),
            done=done,
            truncated=out_of_turns,
            success=trace and f1 == 1,
            components={"trace": float(trace), "answer": f1} if done else {},
            turn_rewards=self._worth(f1),
        )

    def _worth(self, f1: float) -> list[float]:
        """Of every turn so far; ``f1`` is what the last one's answer earned."""
        if self.reward == "outcome":
            worth = [0.0] * len(self._turns)
        else:
            worth = turn_worth(self._turns, self._reference, self.reward)
        worth[-1] += f1
        return worth

    def _told(self, calls: list[ToolCall], answer: str | None) -> str:
        if answer is not None:
            return "right" if token_f1(answer, self._gold) == 1 else "wrong"
        if not calls:
            return "error: write call: or answer:"
        return "\n".join(result(call, self.chain.world) for call in calls)

    def _observe(self, text: str) -> Observation:
        calls = [_written(call) for turn in self._turns for call in turn]
        return Observation(text, state_key("tool_chain", str(self.chain), self.chain.world, calls, text))


def result(call: ToolCall, world: int) -> str:
    """What a call returns in this world: a word, or ``error: `` and why."""
    tool = TOOLS.get(call.name)
    if tool is None:
        return f"error: no tool {call.name}; there are {', '.join(TOOLS)}"
    if call.arguments.keys() != tool.arguments.keys():
        return f"error: {call.name} takes {', '.join(tool.arguments)}"
    for name, kind in tool.arguments.items():
        if call.arguments[name] not in _WORDS[kind]:
            return f"error: {name} is no {kind}"
    words = _WORDS[tool.result]
    return words[state_key(world, call.name, sorted(call.arguments.items())) % len(words)]


def from_spec(argument: str | None, options: Mapping[str, str]) -> ToolChainTask:
    """``tool_chain[:fewest=3,most=6,reward=hard,max_turns=8,max_new_tokens=64]``."""
    return configure(ToolChainTask, argument, options)


def _follows(tool: Tool, earlier: list[ToolCall]) -> bool:
    """Whether a call of the tool can copy an earlier result; the first has none, and must return what can be copied."""
    if not earlier:
        return tool.result != "number"
    return any(TOOLS[call.name].result in tool.arguments.values() for call in earlier)


def _argument(random: Random, kind: str, earlier: list[ToolCall]) -> str:
    """An earlier result of this kind, or a word where there is none."""
    results = [number for number, call in enumerate(earlier, 1) if TOOLS[call.name].result == kind]
    return f"{_RESULT}{random.choice(results)}" if results else random.choice(_WORDS[kind])


def _written(call: ToolCall) -> str:
    return f"call: {call.name} {json.dumps(call.arguments)}"


_COMMAND = re.compile(r"^[ \t]*(call|answer)[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)


def _read(action: str) -> tuple[list[ToolCall], str | None]:
    """The calls of a turn, and its answer if it has one."""
    found = _COMMAND.findall(action)
    answers = [content for command, content in found if command.lower() == "answer"]
    return [read_call(content) for command, content in found if command.lower() == "call"], (answers or [None])[0]
