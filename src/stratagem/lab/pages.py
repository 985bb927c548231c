"""Games of reading: find the page, find the place on it, and read the answer there; each step has its own reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.tree import Tree
from stratagem.tasks.evidence import ndcg

REWARDS = ("answer", "retrieval", "selection", "region")
"""Columns of the reward, each in [0, 1]."""

WEIGHTS = (0.6, 0.1, 0.1, 0.1)
"""What they count (arXiv 2604.14967); the format, a fifth one, cannot be broken here."""


class Reading(NamedTuple):
    """What the policy sees before a turn: the question, and what the turns so far have shown.

    rank: where in the list the right page is; the number of choices: not in it.  region: where on the page that was
    selected the answer is; None: it is another page.  value: what was read there; None: nothing.
    """

    stage: str
    question: int
    rank: int | None = None
    region: int | None = None
    value: int | None = None

    def seen(self) -> int | None:
        """The one number this turn's choice should rest on."""
        return {"search": self.question, "select": self.rank, "crop": self.region, "answer": self.value}[self.stage]


@dataclass(frozen=True)
class PageRules:
    """Four turns of one token out of ``choices``: how to search, which page of the list, which region, what to answer.

    Question ``q`` is searched for best with token ``q``: the right page then is in the list, first with the odds
    ``top``, else further down, all places alike; other searches do not list it. Where it is shows in the list, the
    region shows on the page, and what is to be answered shows in the region. On a wrong page there is nothing, and an
    answer to what was not read is right by chance.

    Rewards: ``answer``, which is right or wrong; ``retrieval``, NDCG of the list; ``selection``, 1 for the right page
    or, where it is not listed, the first; ``region``, 1 for the right region of the right page and 0 else.

    choices: at least 2, questions, places in the list, regions and answers alike.  top: in [0, 1].

    Raises :class:`InputError` for a number out of range.
    """

    choices: int = 3
    top: float = 0.6

    def __post_init__(self) -> None:
        if self.choices < 2:
            raise InputError(f"page_rules.choices = {self.choices}: must be at least 2")
        if not 0 <= self.top <= 1:
            raise InputError(f"page_rules.top = {self.top}: must be in [0, 1]")

    def act(self, state: Reading, tokens: tuple[int, ...]) -> list[Outcome]:
        """What a token leads to."""
        turn = {"search": self._search, "select": self._select, "crop": self._crop, "answer": self._answer}
        return [outcome for outcome in turn[state.stage](state, tokens[0]) if outcome.probability > 0]

    def _search(self, state: Reading, token: int) -> list[Outcome]:
        odds = [self.top, *[(1 - self.top) / (self.choices - 1)] * (self.choices - 1), 0.0]
        if token != state.question:
            odds = [*[0.0] * self.choices, 1.0]
        return [
            Outcome(state._replace(stage="select", rank=rank), chance, components={"retrieval": self.gain(rank)})
            for rank, chance in enumerate(odds)
        ]

    def gain(self, rank: int) -> float:
        """NDCG of a list with the right page at this rank, from 0."""
        return ndcg(range(self.choices), [rank])

    def _select(self, state: Reading, token: int) -> list[Outcome]:
        listed = state.rank != self.choices
        right = {"selection": float(token == (state.rank if listed else 0))}
        if token != state.rank:
            return [Outcome(state._replace(stage="crop"), components=right)]
        shown = [state._replace(stage="crop", region=region) for region in range(self.choices)]
        return [Outcome(page, 1 / self.choices, components=right) for page in shown]

    def _crop(self, state: Reading, token: int) -> list[Outcome]:
        after = state._replace(stage="answer")
        if state.region is None or token != state.region:
            return [Outcome(after)]
        read = [after._replace(value=value) for value in range(self.choices)]
        return [Outcome(text, 1 / self.choices, components={"region": 1.0}) for text in read]

    def _answer(self, state: Reading, token: int) -> list[Outcome]:
        odds = 1 / self.choices if state.value is None else float(token == state.value)
        return [Outcome(None, odds, 1.0, True), Outcome(None, 1 - odds)]


@cache
def page_game(rules: PageRules, weights: tuple[float, float, float, float] = WEIGHTS, name: str = "pages") -> TokenGame:
    """The token game of these rules. weights: what each of its rewards counts in the return."""
    description = (
        f"{rules.choices} questions; find the page, the region on it, and the answer there, one token per turn. "
        f"Rewards: {', '.join(REWARDS)}."
    )
    starts = tuple((1 / rules.choices, Reading("search", question)) for question in range(rules.choices))
    return TokenGame(name, description, rules.choices, starts, rules.act, REWARDS, weights)


def reading_features(tree: Tree, choices: int) -> Float[Tensor, "nodes features"]:
    """Which turn it is and what it shows, one column for each such pair: nodes that look alike share their features."""
    stages = ("search", "select", "crop", "answer")
    states = [state for state in tree.states if isinstance(state, Reading)]
    column = [
        stages.index(state.stage) * (choices + 1) + (choices if state.seen() is None else state.seen() or 0)
        for state in states
    ]
    return torch.nn.functional.one_hot(torch.tensor(column), len(stages) * (choices + 1)).float()
