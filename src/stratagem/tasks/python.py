"""The Python task: a small problem to work out, with a Python interpreter as a tool."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Annotated, NamedTuple

from pydantic import Field

from stratagem.sandbox.isolation import run_python
from stratagem.sandbox.supervisor import Limits, Result
from stratagem.tasks.commands import answered, command, is_right, wrong
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_SHOWN_CHARACTERS = 300
_MEMORY_BYTES = 128 * 2**20
_OUTPUT_BYTES = 4_000


class Problem(NamedTuple):
    """A question, a program that prints its answer, and the answer."""

    question: str
    program: str
    answer: str


@dataclass(frozen=True)
class PythonTask(Task):
    """Work out a problem. Reward 1 for the right answer and 0 otherwise; an answer ends the episode.

    ``run:`` and a Python program, up to the end of the turn, is answered with what the program prints, 300 characters
    at most; a program between ``` marks is taken out of them. ``answer: 84`` answers. Everything else, a program that
    fails or exceeds a limit included, takes a turn and is told what is wrong. Programs run in the
    :func:`~stratagem.sandbox.isolation.sandbox` of this machine, each on its own: nothing is left from one to the next.

    Problems are of six kinds: a term of a recurrence, the digit sum of a power, numbers counted by what divides them,
    the next primes, the steps of a Collatz sequence, and a word turned round or its commonest letter.

    ``max_turns``: programs and answer together, 1 to 100. ``seconds``: a program may take, above 0 and up to 60.
    ``max_new_tokens``: of a turn, 1 to 100,000.
    """

    max_turns: Annotated[int, Field(ge=1, le=100)] = 4
    seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] = 160

    name = "python"
    description = "work out a small problem, with a Python interpreter as a tool"
    system = "Write `run:` and a Python program to see what it prints, and `answer: 84` to answer."

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> PythonEnvironment:
        limits = Limits(self.seconds, _MEMORY_BYTES, processes=4, output_bytes=_OUTPUT_BYTES, file_bytes=2**20)
        return PythonEnvironment(self.problem(split, index), self.max_turns, limits)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Run a program, then answer; the answer at once where there is only one turn."""
        problem = self.problem(split, index)
        if self.max_turns > 1:
            yield f"run:\n{problem.program}"
        yield f"answer: {problem.answer}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution with an answer that is one too high, or a letter too long."""
        *programs, _ = self.solution(split, index)
        yield from programs
        yield f"answer: {wrong(self.problem(split, index).answer)}"

    def answer(self, text: str) -> str | None:
        """The number or text after ``answer:``."""
        return answered(text)

    def problem(self, split: Split, index: int) -> Problem:
        """Question, program and answer of this episode."""
        return draw(
            split,
            index,
            (self.name,),
            lambda random: random.choice(_KINDS)(random),
            lambda problem: state_key(self.name, problem.question),
        )


class PythonEnvironment(Environment):
    """One problem. A state is the problem and what the policy was told last."""

    def __init__(self, problem: Problem, max_turns: int, limits: Limits) -> None:
        self.problem = problem
        self.max_turns = max_turns
        self.limits = limits
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        return self._observe(self.problem.question)

    def step(self, action: str) -> Step:
        self._turn += 1
        word, content = command(action)
        if word == "answer":
            right = is_right(content, self.problem.answer)
            return Step(self._observe("right" if right else "wrong"), float(right), done=True, success=right)
        out_of_turns = self._turn >= self.max_turns
        told, ran = self._ran(content) if word == "run" else ("error: write run: or answer:", None)
        return Step(self._observe(told), done=out_of_turns, truncated=out_of_turns, ran=ran)

    def _ran(self, text: str) -> tuple[str, bool]:
        code = program(text)
        if not code:
            return "error: no program", False
        result = run_python(code, limits=self.limits)
        return shown(result, self.limits), result.ok

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("python", self.problem.question, text))


def program(text: str) -> str:
    """The program that follows ``run:``: what stands between the first ``` marks, else all of it; empty for none.

    What stands on the line of ``run:`` is its first line; lines that are all indented alike are moved to the left.
    """
    fenced = _FENCED.search(text)
    if fenced:
        return textwrap.dedent(fenced[1]).strip("\n")
    first, _, rest = text.partition("\n")
    return (first.strip() + "\n" + textwrap.dedent(rest)).strip("\n").rstrip()


def shown(result: Result, limits: Limits) -> str:
    """What a program printed, or the last line of what went wrong, as the policy reads it."""
    if result.limit == "time":
        return f"error: took longer than {limits.seconds:g} s"
    if result.limit is not None:
        return f"error: too {'many' if result.limit == 'processes' else 'much'} {result.limit}"
    if not result.ok:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.status}"]
        return f"error: {lines[-1]}"[:_SHOWN_CHARACTERS]
    text = result.stdout.strip("\n")
    if not text.strip():
        return "nothing was printed"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def from_spec(argument: str | None, options: Mapping[str, str]) -> PythonTask:
    """``python[:max_turns=4,seconds=2,max_new_tokens=160]``."""
    return configure(PythonTask, argument, options)


# ---- problems: each has its answer from here, and a program that prints it ------------------------------------------


def _recurrence(random: Random) -> Problem:
    first, second, last = random.randint(0, 9), random.randint(1, 9), random.randint(10, 30)
    near, far, modulus = random.randint(1, 5), random.randint(1, 5), random.choice((97, 101, 997, 1009))
    terms = [first, second]
    while len(terms) <= last:
        terms.append((near * terms[-1] + far * terms[-2]) % modulus)
    question = (
        f"A sequence begins {first}, {second}; each further term is {near} times the last plus {far} times the one "
        f"before, modulo {modulus}. What is term number {last + 1}?"
    )
    code = (
        f"a, b = {first}, {second}\nfor _ in range({last}):\n    a, b = b, ({near}*b + {far}*a) % {modulus}\nprint(a)"
    )
    return Problem(question, code, str(terms[last]))


def _digit_sum(random: Random) -> Problem:
    base, exponent = random.randint(2, 60), random.randint(5, 40)
    digits, value = 0, prod([base] * exponent)
    while value:
        value, digit = divmod(value, 10)
        digits += digit
    code = f"print(sum(int(d) for d in str({base}**{exponent})))"
    return Problem(f"What is the sum of the digits of {base}**{exponent}?", code, str(digits))


def _divisible(random: Random) -> Problem:
    low, width = random.randint(1, 500), random.randint(100, 900)
    by, besides = random.sample(range(2, 13), 2)
    high = low + width
    count = sum(1 for n in range(low, high + 1) if not n % by) - sum(
        1 for n in range(low, high + 1) if not n % by and not n % besides
    )
    code = f"print(len([n for n in range({low}, {high + 1}) if n % {by} == 0 and n % {besides} != 0]))"
    question = f"How many whole numbers from {low} to {high} are divisible by {by} but not by {besides}?"
    return Problem(question, code, str(count))


def _prime(random: Random) -> Problem:
    above, which = random.randint(10, 2_000), random.randint(1, 5)
    number, left = above, which
    while left:
        number += 1
        left -= all(number % divisor for divisor in range(2, int(number**0.5) + 1))
    code = f"n, k = {above}, {which}\nwhile k:\n    n += 1\n    k -= all(n % d for d in range(2, n))\nprint(n)"
    ordinal = ("first", "second", "third", "fourth", "fifth")[which - 1]
    return Problem(f"What is the {ordinal} prime number above {above}?", code, str(number))


def _collatz(random: Random) -> Problem:
    start = random.randint(3, 3_000)
    number, steps = start, 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    question = f"Halve an even number, triple an odd one and add 1. After how many steps does {start} first become 1?"
    code = f"n, k = {start}, 0\nwhile n != 1:\n    n = 3*n + 1 if n % 2 else n // 2\n    k += 1\nprint(k)"
    return Problem(question, code, str(steps))


def _word(random: Random) -> Problem | None:
    word = "".join(random.choices("abcdefgh", k=random.randint(8, 16)))
    if random.random() < 0.5:
        code = f"print(''.join(c for c in {word!r}[::-1] if c not in 'ae'))"
        answer = "".join(letter for letter in reversed(word) if letter not in "ae")
        return Problem(f"Write {word} backwards without its letters a and e.", code, answer) if answer else None
    (letter, most), *others = Counter(word).most_common()
    if others and others[0][1] == most:
        return None
    code = f"w = {word!r}\nprint(max(w, key=w.count))"
    return Problem(f"Which letter occurs most often in {word}?", code, letter)


_KINDS: tuple[Callable[[Random], Problem | None], ...] = (_recurrence, _digit_sum, _divisible, _prime, _collatz, _word)
