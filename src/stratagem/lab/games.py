"""The lab's own games, each a few lines that pose one difficulty, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from stratagem.errors import unknown
from stratagem.lab.compared import COMPARED_GAMES
from stratagem.lab.delegation import delegation_game
from stratagem.lab.dialogue import mood_game
from stratagem.lab.game import Act, Outcome, Shown, TokenGame, over
from stratagem.lab.long_games import LONG_GAMES
from stratagem.lab.pages import PageRules, page_game
from stratagem.lab.search import SearchRules, search_game
from stratagem.lab.structured import STRUCTURED_GAMES
from stratagem.lab.tools import ToolRules, tool_game

GAMES: dict[str, TokenGame] = {}
"""The games in which techniques are judged, by name; each is named after its function."""

SPECIAL_GAMES: dict[str, TokenGame] = {}
"""Further games, by name, for what few techniques need: several reward components, states that look alike, a user to
talk to, many turns, turns with an inner structure, two roles, answers that are compared. They are not among those every
technique is judged in."""


def known_games() -> dict[str, TokenGame]:
    """All games of the lab, by name."""
    return GAMES | SPECIAL_GAMES


def find_game(name: str) -> TokenGame:
    """The game of this name. Raises :class:`InputError` naming the nearest one."""
    known = known_games()
    if name not in known:
        raise unknown("game", name, known)
    return known[name]


def game(
    vocabulary: int,
    starts: Sequence[tuple[float, Hashable]] = ((1.0, "start"),),
    rewards: Mapping[str, float] | None = None,
    shown: Shown | None = None,
) -> Callable[[Act], Act]:
    """Enter a game under the name of its ``act``, whose docstring describes it.

    rewards: weights by name, for a game whose reward has several components.
    shown: what states look like, for a game in which several look alike. Either makes it a special one.
    """

    def enter(act: Act) -> Act:
        description = " ".join((inspect.getdoc(act) or "").split())
        entered = TokenGame(act.__name__, description, vocabulary, tuple(starts), act, shown=shown)
        if rewards is not None:
            entered = replace(entered, reward_names=tuple(rewards), reward_weights=tuple(rewards.values()))
        ordinary = rewards is None and shown is None
        (GAMES if ordinary else SPECIAL_GAMES)[entered.name] = entered
        return act

    return enter


@game(vocabulary=4)
def four_by_four(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """One answer of four tokens out of four; right when at least two are where they belong."""
    if len(tokens) < 4:
        return None
    return over(float(_in_place(tokens) >= 2))


@game(vocabulary=3)
def graded(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """One answer of three tokens; a quarter for each in its place, the rest for all three."""
    if len(tokens) < 3:
        return None
    placed = _in_place(tokens)
    return over(1.0 if placed == 3 else placed / 4, success=placed == 3)


@game(vocabulary=4)
def rare(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """One answer of four tokens; a single one of the 256 is right."""
    if len(tokens) < 4:
        return None
    return over(float(_in_place(tokens) == 4))


@game(vocabulary=3, starts=((0.4, 1), (0.3, 2), (0.3, 3)))
def prompts(needed: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Three prompts, answered by three tokens, that ask for one, two or all of them in their place."""
    if len(tokens) < 3:
        return None
    return over(float(_in_place(tokens) >= needed))


@game(vocabulary=3)
def length(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Bits ended by token 2 within five tokens; right with an odd number of ones, be the answer short or long."""
    if tokens[-1] == 2:
        return over(float(sum(tokens[:-1]) % 2))
    return over(0.0, truncated=True) if len(tokens) == 5 else None


@game(vocabulary=2, starts=((1.0, (0, 0)),))
def corridor(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Four turns of two tokens: 00 steps left, 11 right, else nothing; the goal is two to the right.

    Many histories lead to the same place.
    """
    if len(tokens) < 2:
        return None
    turn, place = state
    place += sum(tokens) - 1
    if place == 2:
        return over(1.0)
    return over(0.0, truncated=True) if turn == 3 else [Outcome((turn + 1, place))]


@game(vocabulary=2, starts=((1.0, (0, 0)),))
def windy(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Four turns of one token, left or right; one step in five goes the other way. 1 for ending two to the right."""
    turn, place = state
    direction = 1 if tokens[0] else -1

    def step(by: int, probability: float) -> Outcome:
        if turn < 3:
            return Outcome((turn + 1, place + by), probability)
        there = place + by >= 2
        return Outcome(None, probability, float(there), there)

    return [step(direction, 0.8), step(-direction, 0.2)]


@game(vocabulary=3, starts=((1.0, (0, 0)),))
def stopping(state: tuple[int, int], tokens: tuple[int, ...]) -> list[Outcome]:
    """Up to four turns: token 0 stops, 1 earns a quarter, 2 pays a quarter for a half in every turn still to come.

    Where an episode stops is the policy's doing, and turns differ in what they earn.
    """
    turn, works = state
    earned = {0: 0.0, 1: 0.25, 2: -0.25}[tokens[0]] + (0.5 * works if tokens[0] else 0.0)
    if tokens[0] == 0 or turn == 3:
        return over(earned, success=turn == 3)
    return [Outcome((turn + 1, works + (tokens[0] == 2)), reward=earned)]


@game(vocabulary=3, rewards={"accuracy": 1.0, "brevity": 0.0})
def styles(state: str, tokens: tuple[int, ...]) -> list[Outcome]:
    """One token: 0 is a brief right answer, 1 a long right answer, 2 a brief wrong one. Brevity counts for nothing yet.

    The two right answers tie, so the least weight of brevity decides between them.
    """
    return over(float(tokens[0] < 2), brevity=float(tokens[0] != 1))


_MADE = (
    tool_game(ToolRules()),
    mood_game(),
    delegation_game(),
    search_game(SearchRules()),
    page_game(PageRules()),
    *COMPARED_GAMES,
    *LONG_GAMES,
    *STRUCTURED_GAMES,
)
SPECIAL_GAMES |= {made.name: made for made in _MADE}


@game(vocabulary=2, starts=((1.0, ("start", 0)),), shown=lambda state: state if state[0] == "sign" else state[0])
def cue(state: tuple[str, int], tokens: tuple[int, ...]) -> list[Outcome]:
    """A maze: a sign by chance says which token wins at the junction, which looks the same whatever the sign said.

    After the sign, token 1 leads straight to the junction and 0 through a corridor, which also looks the same.
    """
    place, sign = state
    if place == "start":
        return [Outcome(("sign", said), 0.5) for said in (0, 1)]
    if place == "junction":
        return over(float(tokens[0] == sign))
    return [Outcome(("corridor" if place == "sign" and tokens[0] == 0 else "junction", sign))]


@game(vocabulary=2, starts=((1.0, (0, 1, False)),), shown=lambda state: state[1:])
def fetch(state: tuple[int, int, bool], tokens: tuple[int, ...]) -> list[Outcome]:
    """Eight turns of one token, left or right, on a line of four places: fetch the key at its left end, then reach the
    door at its right end. The time is not shown, so that whoever walks in a circle is back in the same state.
    """
    turn, place, has_key = state
    place = min(max(place + (1 if tokens[0] else -1), 0), 3)
    has_key = has_key or place == 0
    if place == 3 and has_key:
        return over(1.0)
    return over(0.0, truncated=True) if turn == 7 else [Outcome((turn + 1, place, has_key))]


def _in_place(tokens: tuple[int, ...]) -> int:
    """How many tokens stand where they belong: token i in place i."""
    return sum(token == place for place, token in enumerate(tokens))
