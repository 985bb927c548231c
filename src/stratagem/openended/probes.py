"""Games written by hand, whose outcome shows how a player behaves: each is one game from one of its two seats."""

from __future__ import annotations

from collections.abc import Sequence

from stratagem.openended.goals import Goals, Literal

_SEEN: Literal = ("see player1", True)
_HIDDEN: Literal = ("see player1", False)
_CAUGHT: Literal = ("near agent player1", True)
_AWAY: Literal = ("near agent player1", False)

PROBES: dict[str, tuple[Literal, Literal]] = {
    "seek": (_SEEN, _HIDDEN),
    "hide": (_HIDDEN, _SEEN),
    "chase": (_CAUGHT, _AWAY),
    "flee": (_AWAY, _CAUGHT),
    "race": (("hold ball", True), ("hold ball", True)),
    "gather": (("near ball box", True), ("near ball box", True)),
}
"""What the learner wants, and what the co-player does, each in the eyes of the one who wants it."""


def probe_goals(name: str, predicates: Sequence[str]) -> tuple[Goals, Goals]:
    """Goals of seats 0 and 1. Raises :class:`InputError` where the universe lacks a predicate."""
    mine, theirs = (Goals.single([[literal]], predicates) for literal in PROBES[name])
    return mine, theirs
