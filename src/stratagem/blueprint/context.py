"""What fits into a prompt: pinned items always, and of the others those worth most, within a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stratagem.errors import InputError

CountTokens = Callable[[str], int]

_PIECE = re.compile(r"\w{1,6}|[^\w\s]")


def count_pieces(text: str) -> int:
    """Pieces of words of at most six letters, and single signs: a rough count that needs no tokenizer."""
    return sum(1 for _ in _PIECE.finditer(text))


@dataclass(frozen=True)
class ContextItem:
    """A part of a prompt.  tokens: at least 0.  score: what it is worth.  pinned: it stays whatever it costs."""

    text: str
    tokens: int
    score: float = 0.0
    pinned: bool = False


def prune(
    items: Sequence[ContextItem], budget: int, method: Literal["greedy", "knapsack"] = "greedy"
) -> tuple[ContextItem, ...]:
    """The items to keep, in their order; together at most ``budget`` tokens.

    ``greedy``: by score per token, the later of equals first, as long as they fit. ``knapsack``: the largest total
    score there is, in time and memory of items times budget. Items of score 0 or less are kept only when pinned.

    Raises :class:`InputError` when the pinned items alone do not fit, and for tokens below 0 or a score that is NaN.
    """
    if any(item.tokens < 0 or item.score != item.score for item in items):
        raise InputError("context: tokens must be at least 0, and scores numbers")
    room = budget - sum(item.tokens for item in items if item.pinned)
    if room < 0:
        raise InputError(f"context: pinned items take {budget - room} tokens, the budget is {budget}")
    open_places = [place for place, item in enumerate(items) if not item.pinned and item.score > 0]
    chosen = (_greedy if method == "greedy" else _knapsack)(items, open_places, room)
    return tuple(item for place, item in enumerate(items) if item.pinned or place in chosen)


def _greedy(items: Sequence[ContextItem], places: Sequence[int], room: int) -> set[int]:
    chosen: set[int] = set()
    for place in sorted(places, key=lambda place: (-items[place].score / max(items[place].tokens, 1e-9), -place)):
        if items[place].tokens <= room:
            chosen.add(place)
            room -= items[place].tokens
    return chosen


def _knapsack(items: Sequence[ContextItem], places: Sequence[int], room: int) -> set[int]:
    room = min(room, sum(items[place].tokens for place in places))
    best = np.zeros(room + 1)
    taken = np.zeros((len(places), room + 1), dtype=bool)
    for row, place in enumerate(places):
        tokens, score = items[place].tokens, items[place].score
        if tokens <= room:
            longer = best[: room + 1 - tokens] + score
            taken[row, tokens:] = longer > best[tokens:]
            best[tokens:] = np.maximum(best[tokens:], longer)
    chosen: set[int] = set()
    for row in range(len(places) - 1, -1, -1):
        if taken[row, room]:
            chosen.add(places[row])
            room -= items[places[row]].tokens
    return chosen
