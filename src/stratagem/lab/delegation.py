"""A game of two roles: one that decides whom to ask and answers, and one that does the asking."""

from __future__ import annotations

from typing import NamedTuple

from stratagem.lab.game import Outcome, TokenGame, over

PLANNER, ASSISTANT = range(2)
"""Roles."""

DATABASES, KEYS, CALLS = 2, 4, 2
"""Databases there are, keys to each, and calls of an episode."""


class _Desk(NamedTuple):
    """What a turn begins in: the question's database, what was told, calls made, and the database being asked."""

    wanted: int
    told: tuple[int | None, ...] = ()
    asked: int | None = None


def delegation_game() -> TokenGame:
    """A planner asks one of two databases through an assistant, up to twice, and answers with what it was told.

    Tokens: a planner's turn asks database 0 or 1, or answers 0 (token 2) or 1 (token 3); a third call ends the episode.
    The assistant's turn, a conversation of its own, names one of four keys; one of them opens the database that was
    asked, and its bit is told. The answer is the bit of the question's database; one that was not told is wrong, so
    that guessing is of no use. The components ``format`` (whether
    there was an answer) and ``calls`` pay nothing.
    """
    return TokenGame(
        "delegation",
        "A planner asks databases through an assistant, who must find the key, and answers.",
        KEYS,
        tuple((1 / DATABASES, _Desk(database)) for database in range(DATABASES)),
        _answer,
        ("accuracy", "format", "calls"),
        (1.0, 0.0, 0.0),
        seat=_seat,
    )


def _seat(state: _Desk) -> tuple[int, int]:
    return (PLANNER, 0) if state.asked is None else (ASSISTANT, len(state.told) + 1)


def _answer(state: _Desk, tokens: tuple[int, ...]) -> list[Outcome]:
    token = tokens[0]
    if state.asked is not None:
        return _looked_up(state, state.asked, token)
    calls = len(state.told)
    if token < DATABASES:
        return over(0.0, calls=calls) if calls == CALLS else [Outcome(state._replace(asked=token))]
    return over(float(token - DATABASES in state.told), calls=calls, format=1.0)


def _looked_up(state: _Desk, asked: int, key: int) -> list[Outcome]:
    """The bit of the wanted database, where it was asked with its key; nothing else is of use."""
    right = asked == state.wanted and key == (asked + 2) % KEYS
    known = [told for told in state.told if told is not None]
    bits: list[tuple[int | None, float]] = [(None, 1.0)]
    if right:
        bits = [(known[0], 1.0)] if known else [(0, 0.5), (1, 0.5)]
    return [Outcome(_Desk(state.wanted, (*state.told, bit)), odds) for bit, odds in bits]
