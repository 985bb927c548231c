"""Chains of sums for policies over steps: each step is one sum, done in one of several ways, and the end is checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.steps import Walk
from stratagem.planning.steps import Kind
from stratagem.seeding import generator

DIGITS, SIGNS = 10, "+-*"
LARGEST = 1000
"""A wrong way misses the result by at most this much."""


class Chain(NamedTuple):
    """A number, and what is done to it: signs by their place in ``SIGNS``, and digits above 0."""

    start: int
    sums: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"{self.start}" + "".join(f" {SIGNS[sign]} {number}" for sign, number in self.sums)

    @property
    def truth(self) -> int:
        """What it comes to."""
        result = self.start
        for sign, number in self.sums:
            result = _result(sign, result, number)
        return result


@dataclass(frozen=True)
class Chains:
    """Chains of ``length`` sums. A state's look is the next sum: its sign, its digit, and the last digit so far.

    Every look has ``ways`` to be done, one of them right; each of the others misses the result by a number of its own,
    so that mistakes hardly cancel. A mistake is not seen in the looks that follow. There are 300 looks.

    length: at least 1.  ways: at least 2.  Raises :class:`InputError` for less.
    """

    length: int = 4
    ways: int = 5

    def __post_init__(self) -> None:
        for name, least in (("length", 1), ("ways", 2)):
            if getattr(self, name) < least:
                raise InputError(f"chains.{name} = {getattr(self, name)}: must be at least {least}")

    @property
    def looks(self) -> int:
        """Sums that look different."""
        return len(SIGNS) * DIGITS * DIGITS

    @property
    def choices(self) -> int:
        """Ways to do one."""
        return self.ways

    @property
    def most(self) -> int:
        """Tokens of a path."""
        return self.length

    def questions(self, count: int, seed: int) -> list[Chain]:
        """Random ones."""
        source = generator(seed, "chains")
        starts = torch.randint(DIGITS, (count,), generator=source).tolist()
        signs = torch.randint(len(SIGNS), (count, self.length), generator=source).tolist()
        numbers = torch.randint(1, DIGITS, (count, self.length), generator=source).tolist()
        rows = zip(starts, signs, numbers, strict=True)
        return [Chain(start, tuple(zip(which, digits, strict=True))) for start, which, digits in rows]

    def start(self, question: Chain) -> Walk[Chain]:
        """Before the first sum."""
        return Walk(question, (), question.start)

    def look(self, walk: Walk[Chain], kind: Kind) -> int:
        """The next sum."""
        sign, number = walk.question.sums[len(walk.said)]
        return (sign * DIGITS + number) * DIGITS + _number(walk) % DIGITS

    def then(self, walk: Walk[Chain], choice: int, kind: Kind) -> Walk[Chain]:
        """With the next sum done in this way."""
        look, (sign, number) = self.look(walk, kind), walk.question.sums[len(walk.said)]
        result = _result(sign, _number(walk), number) + misses(self.ways)[look][choice]
        return Walk(walk.question, (*walk.said, (look, choice)), result)

    def ended(self, walk: Walk[Chain]) -> bool:
        """Whether all sums are done."""
        return len(walk.said) >= self.length

    def answer(self, walk: Walk[Chain]) -> int | None:
        """The last result."""
        return _number(walk) if self.ended(walk) else None

    def right(self, walk: Walk[Chain]) -> bool:
        """Whether that is the truth."""
        return self.answer(walk) == walk.question.truth

    def solved(self, walk: Walk[Chain], odds: Float64[Tensor, "looks choices"]) -> float:
        """How likely a table comes to the truth from here, exactly. odds: of its choices, rows that add up to 1."""
        if self.ended(walk):
            return float(self.right(walk))
        row: list[float] = odds[self.look(walk, "reason")].tolist()
        return sum(chance * self.solved(self.then(walk, choice, "reason"), odds) for choice, chance in enumerate(row))

    def half_learned(self, seed: int, strength: float = 2.5, spread: float = 1.5) -> Float64[Tensor, "looks choices"]:
        """Logits of a table that is right more often than not.

        They are ``spread`` times a normal number each, and ``strength`` more for the right way.
        """
        noise = torch.randn(self.looks, self.ways, generator=generator(seed, "table"), dtype=torch.float64)
        return spread * noise + strength * (torch.tensor(misses(self.ways)) == 0)


@cache
def misses(ways: int) -> list[list[int]]:
    """By how much every way of every sum misses the result; 0 in one place of every row."""
    source = generator(0, "misses", ways)
    looks = len(SIGNS) * DIGITS * DIGITS
    signs = 2 * torch.randint(2, (looks, ways), generator=source) - 1
    missed = signs * torch.randint(1, LARGEST + 1, (looks, ways), generator=source)
    right = torch.randint(ways, (looks, 1), generator=source)
    rows: list[list[int]] = missed.scatter(1, right, 0).tolist()
    return rows


def _result(sign: int, left: int, right: int) -> int:
    return (left + right, left - right, left * right)[sign]


def _number(walk: Walk[Chain]) -> int:
    assert isinstance(walk.at, int)
    return walk.at
