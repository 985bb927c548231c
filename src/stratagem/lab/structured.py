"""Games of turns with an inner structure: actions of several tokens, and turns that state a sub-goal."""

from __future__ import annotations

from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.spans import Span

WORDS = {(0,): -1, (1, 0): 0, (1, 1, 0): 0, (1, 1, 1): 1}
"""Steps to the right that the words of the corridor make."""


def _one_word(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    if tokens[0] == 0:
        return over(1.0, success=False)
    return over(1.05) if len(tokens) == 2 else None


def _corridor(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    turn, place = state
    if tokens not in WORDS:
        return None
    place = max(place + WORDS[tokens], 0)
    if place == 2:
        return over(1.0)
    return over(0.0, truncated=True) if turn == 4 else [Outcome((turn + 1, place))]


def _errands(state: tuple[int, int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    turn, stage, goal = state
    switches = turn == 0 or tokens[0] == 1
    if len(tokens) < 2 + switches:
        return None
    goal = tokens[1] if switches else goal
    stage += tokens[-1] == 1 and goal == stage % 2
    if stage == 3 or turn == 4:
        return over(float(stage == 3))
    return [Outcome((turn + 1, stage, goal))]


def _plan(state: tuple[int, int, int], tokens: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    begins = len(tokens) == 3
    return ((Span.SWITCH, Span.SUBGOAL, Span.ACTION) if begins else (Span.SWITCH, Span.ACTION)), begins


STRUCTURED_GAMES = (
    TokenGame(
        "one_word",
        "One word: token 0 pays 1, token 1 and any other after it 1.05, so the longer word is the better one.",
        2,
        ((1.0, "start"),),
        _one_word,
    ),
    TokenGame(
        "wordy_corridor",
        "Five turns of words of one to three tokens: 0 steps left, 10 and 110 wait, 111 steps right; the goal is "
        "two to the right.",
        2,
        ((1.0, (0, 0)),),
        _corridor,
    ),
    TokenGame(
        "errands",
        "Five turns, each with a token to keep (0) or switch (1) the sub-goal, the new sub-goal if it is switched, "
        "and an action. Three errands depend on each other; one is done by action 1 under its own sub-goal (0, 1, "
        "0). The first turn states a sub-goal whatever it says before. 1 for all three.",
        2,
        ((1.0, (0, 0, 0)),),
        _errands,
        structure=_plan,
    ),
)
