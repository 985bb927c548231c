"""Games of many turns, each of one token, with no reward before the last."""

from __future__ import annotations

from stratagem.lab.game import Outcome, TokenGame, over

CHAIN = 30
"""Turns of ``chain``."""

LURE = 0.1
"""What ``chain`` pays for giving up."""


def _errand(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome]:
    turn, right = state
    if turn % 2:
        if tokens[0] != 0:
            return over(0.0)
        return over(float(right == 3)) if turn == 5 else [Outcome((turn + 1, right))]
    return [Outcome((turn + 1, right + (tokens[0] == turn // 2)))]


def _chain(state: int, tokens: tuple[int, ...]) -> list[Outcome]:
    if tokens[0] == 0:
        return over(1.0) if state == CHAIN - 1 else [Outcome(state + 1)]
    return over(LURE, success=False) if tokens[0] == 1 else over(0.0)


LONG_GAMES = (
    TokenGame(
        "errand",
        "Three decisions, each followed by a step of routine, in which all but token 0 ends the episode in "
        "failure; 1 at the end when every decision was right, token i in the i-th.",
        3,
        ((1.0, (0, 0)),),
        _errand,
    ),
    TokenGame(
        "chain",
        f"{CHAIN} turns: token 0 goes on, and 1 is paid for the end of the chain; token 1 gives up for {LURE:g}, "
        "and token 2 ends the episode for nothing. Only the end of the chain is a success.",
        3,
        ((1.0, 0),),
        _chain,
    ),
)
