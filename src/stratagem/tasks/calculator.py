"""The calculator task: a sum to work out, with a calculator the policy may call before it answers."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Annotated

from pydantic import Field

from stratagem.tasks.answers import last_number
from stratagem.tasks.commands import command
from stratagem.tasks.options import configure, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_MAX_CHARACTERS = 100
_MAX_BITS = 256
_DECIMALS = 10
_ALLOWED = re.compile(r"[0-9+\-*/%(). ]+")


@dataclass(frozen=True)
class CalculatorTask(Task):
    """Work out an expression. Reward 1 for the right answer and 0 otherwise; an answer ends the episode.

    ``calc: 12*7`` calls the calculator, whose result is the next observation; ``answer: 84`` answers. Everything
    else, a malformed calculation included, takes a turn and is told what is wrong.

    ``terms``: numbers in the expression, 2 to 8. ``largest``: the largest of them, 2 to 1,000,000. ``max_turns``:
    calls and answer together, 1 to 100.
    """

    terms: Annotated[int, Field(ge=2, le=8)] = 3
    largest: Annotated[int, Field(ge=2, le=1_000_000)] = 99
    max_turns: Annotated[int, Field(ge=1, le=100)] = 4

    name = "calculator"
    description = "work out an expression, with a calculator as a tool"
    max_new_tokens = 48
    system = "Write `calc: 12*7` to use the calculator and `answer: 84` to answer."

    def __post_init__(self) -> None:
        validate(self)

    def environment(self, split: Split, index: int) -> CalculatorEnvironment:
        return CalculatorEnvironment(self._expression(split, index), self.max_turns)

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """Calculate, then answer; the answer at once where there is only one turn."""
        expression = self._expression(split, index)
        if self.max_turns > 1:
            yield f"calc: {expression}"
        yield f"answer: {calculate(expression)}"

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        """The solution with an answer that is one too high."""
        *calls, _ = self.solution(split, index)
        yield from calls
        yield f"answer: {int(calculate(self._expression(split, index))) + 1}"

    def answer(self, text: str) -> str | None:
        """The number after ``answer:``."""
        word, content = command(text)
        number = last_number(content) if word == "answer" else None
        return None if number is None else str(number)

    def _expression(self, split: Split, index: int) -> str:
        return draw(split, index, (self.name, self.terms, self.largest), self._generate, state_key)

    def _generate(self, random: Random) -> str:
        numbers = [str(random.randint(1, self.largest)) for _ in range(self.terms)]
        signs = random.choices("+-*", k=self.terms - 1)
        return numbers[0] + "".join(sign + number for sign, number in zip(signs, numbers[1:], strict=True))


class CalculatorEnvironment(Environment):
    """One expression. A state is the expression and what the policy was told last."""

    def __init__(self, expression: str, max_turns: int) -> None:
        self.expression = expression
        self.max_turns = max_turns
        self._value = calculate(expression)
        self._turn = 0

    def reset(self) -> Observation:
        self._turn = 0
        return self._observe(f"What is {self.expression}?")

    def step(self, action: str) -> Step:
        self._turn += 1
        word, content = command(action)
        if word == "answer":
            right = last_number(content) == Fraction(self._value)
            return Step(self._observe("right" if right else "wrong"), float(right), done=True, success=right)
        out_of_turns = self._turn >= self.max_turns
        told = _called(content) if word == "calc" else "error: write calc: or answer:"
        return Step(self._observe(told), done=out_of_turns, truncated=out_of_turns)

    def _observe(self, text: str) -> Observation:
        return Observation(text, state_key("calculator", self.expression, text))


def calculate(expression: str) -> str:
    """The value of an arithmetic expression, rounded to 10 decimals where it has more.

    Numbers, ``+ - * / // % **`` and parentheses, at most 100 characters; nothing is executed. Raises ``ValueError``
    with a short reason for anything else, for division by zero and for results beyond 256 bits.
    """
    if len(expression) > _MAX_CHARACTERS:
        raise ValueError(f"longer than {_MAX_CHARACTERS} characters")
    if not _ALLOWED.fullmatch(expression):
        raise ValueError("only numbers, + - * / // % ** and parentheses")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        raise ValueError("cannot be read") from None
    return _written(_value(tree.body))


def from_spec(argument: str | None, options: Mapping[str, str]) -> CalculatorTask:
    """``calculator[:terms=3,largest=99,max_turns=4]``."""
    return configure(CalculatorTask, argument, options)


def _called(expression: str) -> str:
    try:
        return f"= {calculate(expression)}"
    except ValueError as error:
        return f"error: {error}"


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            return _bounded(Fraction(str(number)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            try:
                return _bounded(_OPERATIONS[type(operation)](_value(left), _value(right)))
            except ZeroDivisionError:
                raise ValueError("division by zero") from None
    raise ValueError("cannot be read")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ValueError("exponents must be whole numbers")
    if abs(exponent) * max(base.numerator.bit_length(), base.denominator.bit_length()) > 2 * _MAX_BITS:
        raise ValueError("too large")
    return base ** int(exponent)


_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise ValueError("too large")
    return value


def _written(value: Fraction) -> str:
    scaled = round(value * 10**_DECIMALS)
    whole, rest = divmod(abs(scaled), 10**_DECIMALS)
    return ("-" if scaled < 0 else "") + f"{whole}.{rest:0{_DECIMALS}}".rstrip("0").rstrip(".")
