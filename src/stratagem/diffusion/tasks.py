"""Puzzles on a canvas: a prompt of fixed length, an answer to fill in, and a verifier that accepts every right one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain, permutations, product
from random import Random
from typing import Annotated, ClassVar

from pydantic import Field

from stratagem.errors import InputError, unknown
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.splits import draw
from stratagem.tasks.task import CheckReport, Split, state_key

Tokens = tuple[int, ...]


class DiffusionTask(ABC):
    """Puzzles a diffusion policy answers all at once.

    ``symbols``: the vocabulary, as a person reads it.  ``prompt_length``, ``answer_length``: positions of the canvas.
    ``end``: token that ends an answer and fills the rest of its canvas; None when answers fill it themselves.
    ``warm_start``: batches of demonstrations after which a fresh policy is better than chance, and far from perfect.
    Prompts have numbers: equal ones are equal prompts in every process, and no prompt is in both splits.
    """

    family: ClassVar[str] = "diffusion"
    kind: ClassVar[str]
    description: ClassVar[str]
    symbols: ClassVar[tuple[str, ...]]
    end: ClassVar[int | None] = None
    warm_start: ClassVar[int]

    @property
    def name(self) -> str:
        """How the command line calls it."""
        values = {entry.name: (getattr(self, entry.name), entry.default) for entry in fields(self)}  # type: ignore[arg-type]
        options = (f",{name}={value}" for name, (value, usual) in values.items() if value != usual)
        return f"diffusion:{self.kind}{''.join(options)}"

    @property
    @abstractmethod
    def prompt_length(self) -> int: ...

    @property
    @abstractmethod
    def answer_length(self) -> int: ...

    @abstractmethod
    def solved(self, split: Split, index: int) -> tuple[Tokens, Tokens]:
        """Prompt number ``index`` of a split, and an answer that solves it, with its end if it has one."""

    @abstractmethod
    def accepts(self, prompt: Tokens, answer: Tokens) -> bool:
        """Whether an answer, without its end, solves the prompt."""

    @abstractmethod
    def corrupted(self, prompt: Tokens, answer: Tokens) -> Tokens:
        """A solution made wrong in as little as possible; both without their end."""

    def read(self, tokens: Tokens) -> str:
        """Tokens as a person reads them."""
        return " ".join(self.symbols[token] for token in tokens)

    def check(self, episodes: int = 20, split: Split = "train") -> CheckReport:
        """Prove that the verifier accepts the task's own solutions and rejects corrupted ones.

        Raises ``AssertionError`` naming the episode when it does not.
        """
        for index in range(episodes):
            prompt, answer = self.solved(split, index)
            answer = answer[: len(answer) if self.end is None else -1]
            if not self.accepts(prompt, answer):
                raise AssertionError(f"{self.name}: {split} episode {index}: the task's own solution was rejected")
            if self.accepts(prompt, self.corrupted(prompt, answer)):
                raise AssertionError(f"{self.name}: {split} episode {index}: a corrupted solution was accepted")
        return CheckReport(episodes, episodes, episodes)


@dataclass(frozen=True)
class Sudoku(DiffusionTask):
    """The lower half of a 4 x 4 sudoku: two rows of four cells, given the upper half and a few clues of the lower.

    Every row, column and 2 x 2 box has each digit once. The answer is all eight cells, the clues repeated; any that is
    right is accepted. There are 288 grids. Without clues an upper half has three lower ones on average.

    ``clues``: cells of the lower half that are shown, 0 to 7.
    """

    clues: Annotated[int, Field(ge=0, le=7)] = 2

    kind = "sudoku"
    description = "fill in the lower half of a 4 x 4 sudoku"
    symbols = ("1", "2", "3", "4", ".")
    prompt_length = 16
    answer_length = 8
    warm_start = 150

    def __post_init__(self) -> None:
        validate(self)

    def solved(self, split: Split, index: int) -> tuple[Tokens, Tokens]:
        return draw(split, index, (self.kind, self.clues), self._generate, lambda puzzle: state_key(puzzle[0]))

    def accepts(self, prompt: Tokens, answer: Tokens) -> bool:
        clues = zip(prompt[8:], answer, strict=False)
        grid = prompt[:8] + answer
        return len(answer) == 8 and all(clue in (4, said) for clue, said in clues) and _is_sudoku(grid)

    def corrupted(self, prompt: Tokens, answer: Tokens) -> Tokens:
        return ((answer[0] + 1) % 4, *answer[1:])

    def _generate(self, random: Random) -> tuple[Tokens, Tokens]:
        grid = random.choice(_grids())
        shown = {*range(8), *random.sample(range(8, 16), self.clues)}
        return tuple(digit if cell in shown else 4 for cell, digit in enumerate(grid)), grid[8:]


@dataclass(frozen=True)
class Countdown(DiffusionTask):
    """An expression that is worth the target, of the given numbers, each used at most once.

    Numbers and target (two digits) are the prompt; the answer is numbers with ``+``, ``-`` and ``*`` between them,
    ``*`` first, then the end. Answers differ in length. The target is none of the numbers.

    ``numbers``: how many are given, each from 1 to 9; 2 to 4.
    """

    numbers: Annotated[int, Field(ge=2, le=4)] = 3

    kind = "countdown"
    description = "reach a target with a few numbers and + - *"
    symbols = (*"0123456789+-*", "end")
    end = 13
    warm_start = 500

    def __post_init__(self) -> None:
        validate(self)

    @property
    def prompt_length(self) -> int:
        return self.numbers + 2

    @property
    def answer_length(self) -> int:
        return 2 * self.numbers

    def solved(self, split: Split, index: int) -> tuple[Tokens, Tokens]:
        return draw(split, index, (self.kind, self.numbers), self._generate, lambda puzzle: state_key(puzzle[0]))

    def accepts(self, prompt: Tokens, answer: Tokens) -> bool:
        value = _value(answer)
        left = list(prompt[: self.numbers])
        for number in answer[::2]:
            if number not in left:
                return False
            left.remove(number)
        return value is not None and value == 10 * prompt[-2] + prompt[-1]

    def corrupted(self, prompt: Tokens, answer: Tokens) -> Tokens:
        """With another operation in the first place: of + and - one differs from whatever stood there."""
        changed = ((answer[0], sign, *answer[2:]) for sign in (10, 11) if sign != answer[1])
        return next(each for each in changed if _value(each) != _value(answer))

    def _generate(self, random: Random) -> tuple[Tokens, Tokens] | None:
        given = sorted(random.randint(1, 9) for _ in range(self.numbers))
        used = random.sample(given, random.randint(2, self.numbers))
        signs = random.choices((10, 11, 12), k=len(used) - 1)
        answer = (used[0], *chain.from_iterable(zip(signs, used[1:], strict=True)))
        value = _value(answer)
        if value is None or not 1 <= value <= 99 or value in given:
            return None
        return (*given, *divmod(value, 10)), (*answer, self.end)


PUZZLES: dict[str, type[Sudoku] | type[Countdown]] = {"sudoku": Sudoku, "countdown": Countdown}
"""Tasks by the name that follows ``diffusion:``."""


def from_spec(argument: str | None, options: Mapping[str, str]) -> DiffusionTask:
    """The task ``diffusion:PUZZLE[,option=value]``. Raises :class:`InputError` for a name or value that is wrong."""
    if argument is None:
        raise InputError(f"task diffusion needs a puzzle, such as diffusion:sudoku; known: {', '.join(PUZZLES)}")
    if argument not in PUZZLES:
        raise unknown("puzzle", argument, PUZZLES)
    puzzle = PUZZLES[argument]
    check_names(f"diffusion:{argument}", options, [entry.name for entry in fields(puzzle)])
    return puzzle(**options)  # type: ignore[arg-type]  # validate() makes numbers of what a command line says


@cache
def _grids() -> tuple[Tokens, ...]:
    """All 4 x 4 sudokus, row after row, digits from 0 to 3."""
    rows = list(permutations(range(4)))
    bands = [(above, below) for above, below in product(rows, rows) if set(above[:2]).isdisjoint(below[:2])]
    grids = (tuple(chain(*upper, *lower)) for upper, lower in product(bands, bands))
    return tuple(grid for grid in grids if _is_sudoku(grid))


def _is_sudoku(grid: Tokens) -> bool:
    rows = [grid[4 * row : 4 * row + 4] for row in range(4)]
    boxes = [(*rows[r][c : c + 2], *rows[r + 1][c : c + 2]) for r in (0, 2) for c in (0, 2)]
    return all(set(unit) == {0, 1, 2, 3} for unit in (*rows, *zip(*rows, strict=True), *boxes))


def _value(answer: Tokens) -> int | None:
    """What an expression is worth; None when it is none."""
    numbers, signs = answer[::2], answer[1::2]
    if len(answer) % 2 == 0 or any(n > 9 for n in numbers) or any(not 10 <= s <= 12 for s in signs):
        return None
    total, term = 0, numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign == 12:
            term *= number
        else:
            total, term = total + term, number if sign == 10 else -number
    return total + term
