"""Asking somebody who reads text which of two answers is better: a judge behind a helper, or any function."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.helpers import Helper, Question, helper
from stratagem.parts import Preference
from stratagem.readings import Pair, ReadsPairs

JudgeFunction = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float | None]]
"""From prompts, first and second answers: how likely the first of each pair is the better one; None: undecided."""

INSTRUCTION = (
    "Compare two answers to a question. Judge how helpful, right and clear they are; their order and their length do "
    "not count. Give your reasons in a few sentences, then end with [[A]] if answer A is better, [[B]] if answer B is "
    "better, or [[C]] if neither is.\n\n"
    "[Question]\n{prompt}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}"
)
"""What a judge is asked, with the verdicts of arXiv 2306.05685; the wording is ours."""

_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_LETTER = re.compile(r"\W*([ABC])\W*")
_WINS = {"A": 1.0, "B": 0.0, "C": 0.5}


@dataclass(frozen=True)
class Judge(ReadsPairs, Preference):
    """``P(i > j)`` is what a helper says that is shown both answers as text: 1, 0 or 1/2 (arXiv 2306.05685).

    All pairs of a batch are asked about in one call of the helper, which asks as many at a time, tries again and gives
    up as its options say. Its verdict is the last ``[[A]]``, ``[[B]]`` or ``[[C]]``, or an answer of that letter alone.
    A question that fails, and an answer without a verdict, are no tie: the comparison is lost.

    helper: who is asked, as :func:`stratagem.helpers.helper` reads it: ``endpoint:http://HOST:PORT/v1#MODEL``,
    ``model:PATH`` or ``python:MODULE:FUNCTION``, with options (``;parallel=32;record=judge.jsonl``). With ``record`` a
    run that is resumed hears the same again, whatever the server says by then.
    both_orders: each pair is shown in both orders and the mean taken, so that who is shown first gains nothing; one
    that is lost in either order is lost. Otherwise a hash of the pair decides who is shown first.
    instruction: with ``{prompt}``, ``{first}`` and ``{second}``.

    Raises :class:`InputError` for an instruction that lacks one of them and, before a run begins, for a helper that
    there is not.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.preferences", "reward.verifier.model"})

    helper: str = ""
    both_orders: bool = True
    instruction: str = INSTRUCTION

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            found = sorted(name for _, name, _, _ in Formatter().parse(self.instruction) if name is not None)
        except ValueError:
            found = []
        if found != ["first", "prompt", "second"]:
            raise InputError(
                f"{self.part_name()}.instruction: must show {{prompt}}, {{first}} and {{second}}, each once; other "
                "braces are written twice"
            )

    def check_ready(self) -> None:
        if not self.helper:
            raise InputError(
                f"{self.part_name()}.helper: names nobody who is asked; write endpoint:ADDRESS#MODEL, model:PATH or "
                "python:module:function"
            )
        helper(self.helper)

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        return verdicts(helper(self.helper), self.instruction, pairs, self.both_orders)

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        return self.compared(x, first, second)


def verdicts(judge: Helper, instruction: str, pairs: Sequence[Pair], both_orders: bool = True) -> list[float]:
    """How likely the first of each pair is the better one, 1, 3/4, ..., 0; NaN where there is no verdict."""
    keys = [_key(pair) for pair in pairs]
    if both_orders:
        shown = [*pairs, *map(_swapped, pairs)]
        said = _asked(judge, instruction, shown, keys * 2)
        return [(one + 1 - other) / 2 for one, other in zip(said[: len(pairs)], said[len(pairs) :], strict=True)]
    turned = [bool(key & 1) for key in keys]
    shown = [_swapped(pair) if swap else pair for pair, swap in zip(pairs, turned, strict=True)]
    said = _asked(judge, instruction, shown, keys)
    return [1 - one if swap else one for one, swap in zip(said, turned, strict=True)]


def _asked(judge: Helper, instruction: str, pairs: Sequence[Pair], seeds: Sequence[int]) -> list[float]:
    """How likely the first of each pair is the better one as they are shown."""
    questions = [Question.of(instruction.format(**p._asdict()), seed) for p, seed in zip(pairs, seeds, strict=True)]
    return [verdict(reply.text) for reply in judge.ask(questions)]


def verdict(text: str | None) -> float:
    """What a judge's answer says of the first: 1, 0, or 1/2; NaN for none."""
    found = _VERDICT.findall(text or "")
    if not found:
        alone = _LETTER.fullmatch((text or "").strip())
        found = [alone[1]] if alone else []
    return _WINS[found[-1]] if found else math.nan


def _swapped(pair: Pair) -> Pair:
    return Pair(pair.prompt, pair.second, pair.first)


def _key(pair: Pair) -> int:
    """The same for the same pair in every process; 62 bits."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(pair)).encode(), digest_size=8).digest(), "big") >> 2


# ---- any function ---------------------------------------------------------------------------------------------------


def ask(
    judge: JudgeFunction, prompts: Sequence[str], first: Sequence[str], second: Sequence[str], both_orders: bool = True
) -> Float64[Tensor, " pairs"]:
    """``P(first > second)`` of every pair. Equal answers tie without being shown, and so do undecided ones.

    both_orders: every pair is shown in both orders, and the mean taken, so that who is shown first gains nothing.

    Raises :class:`BrokenRunError` when the judge raises or says something else than it was asked for: a judge that is
    down must not look like one that cannot decide. Raises :class:`InputError` for lists of different lengths.
    """
    if not len(prompts) == len(first) == len(second):
        raise InputError(
            f"comparisons need as many prompts as first and second answers, not {len(prompts)}, {len(first)} and "
            f"{len(second)}"
        )
    shown = [row for row in range(len(prompts)) if first[row] != second[row]]
    said = torch.full((len(prompts),), 0.5, dtype=torch.float64)
    if not shown:
        return said
    prompt, a, b = ([texts[row] for row in shown] for texts in (prompts, first, second))
    if both_orders:
        found = _answers(judge, prompt * 2, a + b, b + a)
        said[shown] = (found[: len(shown)] + 1 - found[len(shown) :]) / 2
    else:
        said[shown] = _answers(judge, prompt, a, b)
    return said


def _answers(
    judge: JudgeFunction, prompts: list[str], first: list[str], second: list[str]
) -> Float64[Tensor, " pairs"]:
    try:
        answers = list(judge(prompts, first, second))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise BrokenRunError(f"the judge did not answer: {type(error).__name__}: {reason}") from error
    if len(answers) != len(prompts):
        raise BrokenRunError(f"the judge gave {len(answers)} answers to {len(prompts)} comparisons")
    for answer in answers:
        if answer is not None and not 0 <= answer <= 1:
            raise BrokenRunError(f"the judge said {answer}: must be a probability in [0, 1], or None")
    return torch.tensor([0.5 if answer is None else answer for answer in answers], dtype=torch.float64)
