"""Asking somebody who reads text which of two answers is better: a judge, a learned model, people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError

Judge = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[float | None]]
"""From prompts, first and second answers: how likely the first of each pair is the better one; None: undecided."""


def ask(
    judge: Judge, prompts: Sequence[str], first: Sequence[str], second: Sequence[str], both_orders: bool = True
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


def _answers(judge: Judge, prompts: list[str], first: list[str], second: list[str]) -> Float64[Tensor, " pairs"]:
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
