"""Chains of arithmetic in words, and a program that works them out and errs the more often the more it does at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from stratagem.helpers.helper import Message
from stratagem.tasks.splits import draw, seeded
from stratagem.tasks.task import Split, state_key

_VERB = {"+": "adds", "-": "subtracts", "*": "multiplies by"}
_SIGN = {verb: sign for sign, verb in _VERB.items()}
_START = re.compile(r"#(\d{1,2})\b|(?<![\w.])(-?\d{1,9})\b")
_STEP = re.compile(r"\b(adds|subtracts|multiplies by) (\d{1,4})\b")
_BRACKET = re.compile(r"\[(-?\d{1,30})\]")
_LONGEST = 40

PLACES = ("shop", "farm", "school", "market", "kitchen", "library")
THINGS = ("apples", "books", "eggs", "pencils", "plates", "flowers")

Operation = tuple[str, int]


@dataclass(frozen=True)
class Chain:
    """A start and operations on it, from left to right."""

    start: int
    steps: tuple[Operation, ...]
    place: str = PLACES[0]
    thing: str = THINGS[0]

    @property
    def text(self) -> str:
        """The question in words."""
        told = ", ".join(f"{_VERB[sign]} {number}" for sign, number in self.steps)
        asked = f"How many {self.thing} does the {self.place} have?"
        return f"A {self.place} has {self.start} {self.thing}. It {told}. {asked}"

    @property
    def lines(self) -> list[str]:
        """The steps worked out, one a line."""
        return work(self.start, self.steps)[0]

    @property
    def answer(self) -> int:
        """The result."""
        return work(self.start, self.steps)[1]

    def part(self, first: int, last: int, number: int) -> str:
        """A sub-question for the steps from ``first`` to before ``last``, as number ``number`` from 1."""
        begun = f"{self.start} {self.thing}" if number == 1 else f"#{number - 1} {self.thing}"
        told = ", ".join(f"{_VERB[sign]} {value}" for sign, value in self.steps[first:last])
        return f"From {begun} the {self.place} {told}, how many {self.thing}?"


def chain_of_episode(task: str, split: Split, index: int, fewest: int, most: int) -> Chain:
    """The chain of an episode of a task, of ``fewest`` to ``most`` steps."""
    return draw(
        split,
        index,
        (task, fewest, most),
        lambda random: draw_chain(random, fewest, most),
        lambda chain: state_key(task, chain.text),
    )


def draw_chain(random: Random, fewest: int, most: int) -> Chain:
    """A chain of so many steps."""
    count = random.randint(fewest, most)
    steps = tuple((sign, random.randint(2, 9)) for sign in random.choices("+-*", k=count))
    return Chain(random.randint(2, 9), steps, random.choice(PLACES), random.choice(THINGS))


def work(start: int, steps: Sequence[Operation]) -> tuple[list[str], int]:
    """The lines of working it out, and the result."""
    lines, value = [], start
    for sign, number in steps:
        result = value + number if sign == "+" else value - number if sign == "-" else value * number
        lines.append(f"{value} {sign} {number} = {result}")
        value = result
    return lines, value


def bracketed(text: str) -> str:
    """The last number in square brackets; all of the text without space around it where there is none."""
    found = _BRACKET.findall(text)
    return found[-1] if found else text.strip()


def effort(steps: Sequence[Operation]) -> int:
    """What steps count: 1 each, a multiplication 2."""
    return sum(2 if sign == "*" else 1 for sign, _ in steps)


def error_rate(steps: Sequence[Operation], error: float) -> float:
    """How often steps that are worked out at once go wrong: ``min(1, error effort^2)``, and never for a single step."""
    return 0.0 if len(steps) < 2 else min(1.0, error * effort(steps) ** 2)


@dataclass(frozen=True)
class NoisySolver:
    """Answers questions of :class:`Chain` and of parts of one, in the wording of :meth:`Chain.part`.

    It works out the steps it is asked for and errs at the last of them with :func:`error_rate`; the result is then too
    high by 1 to 9. A question that begins with ``#2`` begins with its second answer. Asked a question whose beginning
    it has answered before, it goes on from there, whether that answer was right or not. Everything follows from the
    seed and the steps. What it cannot read it answers with a text without a number.

    error: in [0, 1]; at 0 it never errs.
    """

    error: float = 0.05

    def __call__(self, messages: Sequence[Message], seed: int) -> str:
        said = [message["content"] for message in messages if message["role"] == "assistant"]
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if not asked:
            return "There is no question."
        answers: list[int | None] = [_number(text) for text in said]
        question = _read(asked[-1], answers)
        if question is None:
            return "I cannot read this question."
        start, steps = question
        done, value, lines = self._known(start, steps, asked, answers, said)
        rest = steps[done:]
        new, result = work(value, rest)
        random = seeded("noisy_solver", seed, value, rest, self.error)
        if random.random() < error_rate(rest, self.error):
            result += random.randint(1, 9)
            new[-1] = f"{new[-1].split(' = ')[0]} = {result}"
        return "\n".join([*lines, *new, f"The answer is [{result}]."])

    def _known(
        self,
        start: int,
        steps: Sequence[Operation],
        asked: Sequence[str],
        answers: Sequence[int | None],
        said: Sequence[str],
    ) -> tuple[int, int, list[str]]:
        """How many first steps earlier answers cover, their result, and the lines that were said of it."""
        best = (0, start, list[str]())
        reached: dict[int, tuple[int, list[str]]] = {}
        for number, (text, answer) in enumerate(zip(asked, answers, strict=False)):
            parsed = _parsed(text)
            if parsed is None or answer is None:
                continue
            earlier, begun, part = parsed
            done, lines = (0, []) if earlier is None else reached.get(earlier - 1, (-1, []))
            if done < 0 or begun not in (None, start) or steps[done : done + len(part)] != part:
                continue
            reached[number] = (done + len(part), [*lines, *said[number].splitlines()[:-1]])
            if reached[number][0] > best[0]:
                best = (reached[number][0], answer, reached[number][1])
        return best


def _read(text: str, answers: Sequence[int | None]) -> tuple[int, tuple[Operation, ...]] | None:
    """Where a question begins and what it does; None for one that cannot be read."""
    parsed = _parsed(text)
    if parsed is None:
        return None
    earlier, start, steps = parsed
    if earlier is not None:
        start = answers[earlier - 1] if 0 < earlier <= len(answers) else None
    return None if start is None else (start, steps)


def _parsed(text: str) -> tuple[int | None, int | None, tuple[Operation, ...]] | None:
    """The number of the answer or the number itself that a text begins with, and its steps; None without either."""
    begin, step = _START.search(text), _STEP.search(text)
    if begin is None or step is None or begin.start() > step.start():
        return None
    steps = tuple((_SIGN[verb], int(number)) for verb, number in _STEP.findall(text)[:_LONGEST])
    return (int(begin[1]), None, steps) if begin[1] else (None, int(begin[2]), steps)


def _number(text: str) -> int | None:
    found = _BRACKET.findall(text)
    return int(found[-1]) if found else None
