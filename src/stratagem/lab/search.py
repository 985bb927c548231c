"""Games in which a thing is sought: walk to where it may be, ask which one is meant, or look into a doubtful memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from stratagem.errors import InputError
from stratagem.lab.game import Outcome, TokenGame

REWARDS = ("reward", "cost", "walking", "asking", "remembering")
"""Columns of the reward: having found the thing, and what it took (noted), in all and by kind."""


class Sought(NamedTuple):
    """What the policy knows before a turn.

    place: the candidate it stands before; None: where it started.  seen: candidates that it has been to, which were
    not meant.  told, recalled: the candidate that the user and the memory named.  questions, turn: so far.
    """

    place: int | None = None
    seen: tuple[int, ...] = ()
    told: int | None = None
    recalled: int | None = None
    questions: int = 0
    turn: int = 0

    def __str__(self) -> str:
        said = [] if self.told is None else [f"told {self.told}"]
        said += [] if self.recalled is None else [f"remembers {self.recalled}"]
        return "; ".join([f"turn {self.turn}", f"at {self.place}", f"not {list(self.seen)}", *said])


@dataclass(frozen=True)
class SearchRules:
    """One of ``K`` candidates is meant, each as likely. Tokens ``0 .. K-1`` walk to one of them, token ``K`` asks.

    Candidates lie in directions of their own, so from ``i`` to ``j`` it is ``distances[i] + distances[j]``, by way of
    the start. Who arrives at the one that is meant has found it: reward 1, and the end. The user says which one it is,
    always. With a memory, token ``K+1`` looks into it: it names the one that is meant, and another with the odds
    ``staleness``, always the same. After ``turns`` the search is cut.

    Costs (arXiv 2512.18571) are noted and count nothing in the return of the game itself: ``walk`` a metre,
    ``ask * (1 + fatigue * n)`` for a question after ``n`` others, ``recall`` for a look into the memory.

    distances: metres from the start, at least one, above 0.  walk, ask, fatigue, recall: at least 0.
    staleness: in [0, 1]; None: no memory.  turns: at least 1; None: one more than there are candidates.

    Raises :class:`InputError` for a number out of range.
    """

    distances: tuple[float, ...] = (2.0, 6.0)
    walk: float = 0.05
    ask: float = 0.1
    fatigue: float = 0.5
    recall: float = 0.01
    staleness: float | None = None
    turns: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            "distances": (
                bool(self.distances) and all(0 < metres < math.inf for metres in self.distances),
                "one or more numbers above 0, all finite",
            ),
            "staleness": (self.staleness is None or 0 <= self.staleness <= 1, "None or in [0, 1]"),
            "turns": (self.turns is None or self.turns >= 1, "None or at least 1"),
            **{name: (0 <= getattr(self, name) < math.inf, "finite and at least 0") for name in _PRICES},
        }
        for name, (right, must) in allowed.items():
            if not right:
                raise InputError(f"search_rules.{name} = {getattr(self, name)}: must be {must}")

    @property
    def candidates(self) -> int:
        """Number of candidates, and the token that asks."""
        return len(self.distances)

    @property
    def cost_of_walking(self) -> float:
        """Expected cost of walking from the nearest to the farthest, until it is found."""
        near = sorted(self.distances)
        return self.walk * sum(2 * sum(near[:k]) + metres for k, metres in enumerate(near)) / len(near)

    @property
    def cost_of_asking(self) -> float:
        """Expected cost of asking once and walking there."""
        return self.ask + self.walk * sum(self.distances) / len(self.distances)

    def act(self, state: Sought, tokens: tuple[int, ...]) -> list[Outcome]:
        """What a token leads to."""
        token = tokens[0]
        if token < self.candidates:
            return self._walked(state, token)
        if token == self.candidates:
            cost = self.ask * (1 + self.fatigue * state.questions)
            asked = state._replace(questions=state.questions + 1)
            told = self._belief(state) if state.told is None else {state.told: 1.0}
            return [self._next(asked._replace(told=one), odds, "asking", cost) for one, odds in told.items()]
        if state.recalled is not None:
            return [self._next(state, 1.0, "remembering", self.recall)]
        named = {k: sum(odds * self._names(k, one) for one, odds in self._belief(state).items()) for k in self._all}
        return [
            self._next(state._replace(recalled=one), odds, "remembering", self.recall)
            for one, odds in named.items()
            if odds > 0
        ]

    @property
    def _all(self) -> range:
        return range(self.candidates)

    def _walked(self, state: Sought, to: int) -> list[Outcome]:
        metres = 0.0 if state.place == to else self.distances[to]
        if state.place not in (None, to):
            assert state.place is not None
            metres += self.distances[state.place]
        cost = self.walk * metres
        found = self._belief(state).get(to, 0.0)
        missed = state._replace(place=to, seen=tuple(sorted({*state.seen, to})))
        outcomes = [Outcome(None, found, 1.0, True, components=_noted("walking", cost))]
        outcomes += [self._next(missed, 1 - found, "walking", cost)]
        return [outcome for outcome in outcomes if outcome.probability > 0]

    def _next(self, state: Sought, odds: float, kind: str, cost: float) -> Outcome:
        """The turn after, unless there is none."""
        turn = state.turn + 1
        if turn == (self.candidates + 1 if self.turns is None else self.turns):
            return Outcome(None, odds, truncated=True, components=_noted(kind, cost))
        return Outcome(state._replace(turn=turn), odds, components=_noted(kind, cost))

    def _belief(self, state: Sought) -> dict[int, float]:
        """How likely each candidate is meant, given what was seen and said; without those that cannot be."""
        if state.told is not None:
            return {state.told: 1.0}
        odds = {one: self._names(state.recalled, one) for one in self._all if one not in state.seen}
        total = sum(odds.values())
        return {one: weight / total for one, weight in odds.items() if weight > 0}

    def _names(self, named: int | None, meant: int) -> float:
        """Odds that the memory names this one, when that one is meant."""
        if named is None:
            return 1.0
        wrong = (self.staleness or 0.0) if self.candidates > 1 else 0.0
        return 1 - wrong if named == meant else wrong / (self.candidates - 1)


_PRICES = ("walk", "ask", "fatigue", "recall")


def _noted(kind: str, cost: float) -> dict[str, float]:
    return {"cost": cost, kind: cost}


@cache
def search_game(rules: SearchRules, cost_weight: float = 0.0, name: str = "search") -> TokenGame:
    """The token game of these rules. cost_weight: what the cost counts in the return, taken from the reward."""
    memory = rules.staleness is not None
    description = (
        f"One of {rules.candidates} candidates is meant: walk to one of them, ask which it is"
        f"{', or look into a memory' if memory else ''}. One token per turn; each costs something."
    )
    weights = (1.0, -cost_weight, 0.0, 0.0, 0.0)
    tokens = rules.candidates + 1 + memory
    return TokenGame(name, description, tokens, ((1.0, Sought()),), rules.act, REWARDS, weights)
