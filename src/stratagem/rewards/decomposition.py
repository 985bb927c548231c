"""What sub-questions are worth to a solver: coverage, consistency, correctness, proximity of reasoning, operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch

from stratagem.memory.embedding import Embedding

ProximityMode = Literal["released", "new"]
Nouns = Callable[[str], Collection[str]]
"""From a text to the nouns in it, in the form in which they are compared."""

_WORD = re.compile(r"[a-z]{3,}")
_OPERATOR = re.compile(r"(?<=[\d)\]])[ \t]*([+\-*/])[ \t]*(?=[\d(\[-])")
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "the and but for nor yet with without from into onto over under after before than then that this these "
        "those there here what which who whom whose when where why how many much more most less least few each "
        "every all any some other another not only just also still again once first second third last next has "
        "have had having does did done are was were been being will would shall should can could may might must "
        "its his her their our your him them they you she now out off per two three four five six seven eight nine "
        "ten one add adds added subtract subtracts subtracted multiply multiplies multiplied divide divides "
        "divided get gets give gives given take takes took make makes made find finds found work works left"
    )
)


def content_words(text: str) -> frozenset[str]:
    """A stand-in for nouns: words of three letters or more that are on no list of function words and common verbs.

    In lower case, without a plural ``s`` (but that of ``ss``). It needs no tagger; one of your own is a function from
    a text to its nouns.
    """
    words = (word for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS)
    return frozenset(word[:-1] if word.endswith("s") and not word.endswith("ss") else word for word in words)


def coverage(question: Collection[str], asked: Collection[str]) -> float:
    """``R1 = 1 - |N(Q) symdiff N(q)| / |N(Q)|`` for the nouns of the question and of all sub-questions.

    1 where the question has none; below 0 where sub-questions bring in more than there is to cover.
    """
    mentioned = set(question)
    return 1 - len(mentioned ^ set(asked)) / len(mentioned) if mentioned else 1.0


def consistency(pairs: Sequence[tuple[str, str]], embed: Embedding, weight: float = 0.25) -> float:
    """``R2 = sum_i weight cos(e(q_i), e(a_i))`` over sub-questions and their answers; 0 without any."""
    return weight * sum(cosines([first for first, _ in pairs], [second for _, second in pairs], embed))


def proximity(
    gold: Sequence[str], before: Sequence[str], after: Sequence[str], embed: Embedding, mode: ProximityMode = "released"
) -> float:
    """``R4``: over the lines that all three have, whether the solver's reasoning came closer to the gold one.

    With ``old = cos(gold_l, before_l)`` and ``new = cos(gold_l, after_l)``: ``released``, as in the authors' code, is
    ``0.5 old`` where ``new > old`` and ``-1 - 0.5 old`` elsewhere; ``new`` is ``0.5 new`` and ``-0.5 new``, which is
    what the code seems to have been meant to say.
    """
    lines = min(len(gold), len(before), len(after))
    old = cosines(gold[:lines], before[:lines], embed)
    new = cosines(gold[:lines], after[:lines], embed)
    return sum(_nearer(o, n, mode) for o, n in zip(old, new, strict=True))


def operations(gold: Sequence[str], said: Sequence[str], weight: float = 0.5) -> float:
    """``R5``: ``weight`` for every place at which both lists have the same operator, ``-weight`` where they differ.

    Places that only one of them has do not count.
    """
    return sum(weight if mine == theirs else -weight for mine, theirs in zip(gold, said, strict=False))


def operators(text: str) -> list[str]:
    """The signs ``+ - * /`` between numbers or brackets, in the order of the text."""
    return _OPERATOR.findall(text)


def cosines(first: Sequence[str], second: Sequence[str], embed: Embedding) -> list[float]:
    """Of the vectors of texts, pair by pair; 0 where one of the two is the zero vector."""
    if not first:
        return []
    vectors = embed([*first, *second]).double()
    vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return [float(value) for value in (vectors[: len(first)] * vectors[len(first) :]).sum(1)]


def _nearer(old: float, new: float, mode: ProximityMode) -> float:
    if mode == "new":
        return 0.5 * new if new > old else -0.5 * new
    return 0.5 * old if new > old else -1 - 0.5 * old
