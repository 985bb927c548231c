"""Games in which a policy asks experts and answers with what it was told; a policy that scores them by their cards."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.policy import NodeInputs, NodePolicy
from stratagem.lab.tree import Tree
from stratagem.parts import View
from stratagem.training.world import check_asked

REWARDS = ("reward", "format", "cost")
"""Columns of the reward: being right, having kept to the format (noted), and what calls cost (noted)."""


class Asked(NamedTuple):
    """What the policy sees before a turn: which question it is, and the experts it has asked, in order."""

    question: int
    calls: tuple[int, ...] = ()

    def __str__(self) -> str:
        return "; ".join([f"question {self.question}", *(f"asked expert {expert}" for expert in self.calls)])


@dataclass(frozen=True)
class RouterRules:
    """Token ``e`` asks expert ``e``; the last token answers with what the expert asked last has said.

    Question ``q`` is of domain ``q mod D``; all are of equal odds. The answer is right with ``accuracy[e][d]``, however
    often ``e`` was asked, and never without a call. The episode ends with an answer or the last turn.

    Rewards: 1 for a right answer; ``format`` is 1 for an answer after at least one call, without ``require_call`` for
    any; ``cost`` is the price of all calls. The last two are noted and count nothing in the return.

    accuracy: of every expert in each of the ``D`` domains, in [0, 1].  price: of a call of every expert, at least 0;
    none: 0 each.  questions: at least 1.  turns: most of them, the answer's included, at least 1.

    Raises :class:`InputError` for a number out of range.
    """

    accuracy: tuple[tuple[float, ...], ...]
    price: tuple[float, ...] = ()
    questions: int = 3
    turns: int = 4
    require_call: bool = True

    def __post_init__(self) -> None:
        table = self.accuracy
        allowed = {
            "accuracy": (
                bool(table)
                and all(row and len(row) == len(table[0]) and all(0 <= odds <= 1 for odds in row) for row in table),
                "a row of numbers in [0, 1] for each expert, all of one length",
            ),
            "price": (
                len(self.price) in (0, len(table)) and all(0 <= price < math.inf for price in self.price),
                "finite and at least 0, one for each expert",
            ),
            "questions": (self.questions >= 1, "at least 1"),
            "turns": (self.turns >= 1, "at least 1"),
        }
        for name, (right, must) in allowed.items():
            if not right:
                raise InputError(f"router_rules.{name} = {getattr(self, name)}: must be {must}")

    @property
    def experts(self) -> int:
        """Number of experts, and the token that answers."""
        return len(self.accuracy)

    def domain(self, question: int) -> int:
        """The domain of a question."""
        return question % len(self.accuracy[0])

    def act(self, state: Asked, tokens: tuple[int, ...]) -> list[Outcome]:
        """What a token leads to."""
        token = tokens[0]
        if token < self.experts:
            asked = state._replace(calls=(*state.calls, token))
            if len(asked.calls) < self.turns:
                return [Outcome(asked)]
            return [Outcome(truncated=True, components=self._noted(asked.calls))]
        noted = self._noted(state.calls, float(bool(state.calls) or not self.require_call))
        odds = self.accuracy[state.calls[-1]][self.domain(state.question)] if state.calls else 0.0
        return [
            Outcome(None, chance, float(right), right, components=noted)
            for right, chance in ((True, odds), (False, 1 - odds))
            if chance > 0
        ]

    def _noted(self, calls: tuple[int, ...], formed: float = 0.0) -> dict[str, float]:
        return {"format": formed, "cost": sum(self.price[expert] for expert in calls) if self.price else 0.0}


@cache
def router_game(rules: RouterRules, name: str = "router") -> TokenGame:
    """The token game of these rules."""
    description = (
        f"{rules.questions} questions of {len(rules.accuracy[0])} domains, {rules.experts} experts, at most "
        f"{rules.turns} turns of one token: ask an expert, or answer with what the last one said."
    )
    starts = tuple((1 / rules.questions, Asked(question)) for question in range(rules.questions))
    return TokenGame(name, description, rules.experts + 1, starts, rules.act, REWARDS, (1.0, 0.0, 0.0))


class CardPolicy(NodePolicy):
    """``logits[n, a] = f_n^T W c_a``: features of nodes, cards of tokens, and one matrix that says what goes together.

    With cards that describe, a token nobody has trained is scored by its card. With cards that only tell tokens apart
    (rows of the identity) it is a table over features.

    features: float [nodes, width].  cards: float [vocabulary, card width]. ``W`` starts at 0: a uniform policy.
    """

    kind: ClassVar[str] = "cards"
    says: ClassVar[frozenset[str]] = NodePolicy.says - {"hidden", "hidden_square"}
    views: ClassVar[tuple[type[View], ...]] = ()

    def __init__(self, features: Float[Tensor, "nodes width"], cards: Float[Tensor, "vocabulary card"]) -> None:
        super().__init__(len(features))
        self.features: Tensor
        self.cards: Tensor
        self.register_buffer("features", features.float().clone())
        self.register_buffer("cards", cards.float().clone())
        self.fit = nn.Parameter(torch.zeros(features.shape[1], cards.shape[1]))

    @classmethod
    def blank(cls, nodes: int, width: int, vocabulary: int, card_width: int) -> Self:
        """One of these sizes, to be filled."""
        return cls(torch.zeros(nodes, width), torch.zeros(vocabulary, card_width))

    def forward(
        self, x: Experience, *, temperature: float = 1.0, also: Collection[str] = (), view: View | None = None
    ) -> PolicyOutput:
        """Log-probability of every token of ``x``; ``also`` what ``says`` lists, of its node.

        Raises ``ValueError`` when the inputs are not :class:`NodeInputs`, :class:`InputError` for what it cannot say.
        """
        check_asked(self, also, view)
        if not isinstance(x.inputs, NodeInputs) or x.action is None:
            raise ValueError(f"a card policy reads NodeInputs and actions, not {type(x.inputs).__name__}")
        logits = self.features @ self.fit @ self.cards.T / temperature
        return self.say(x, logits, x.inputs.node, also)

    @torch.no_grad()
    def table(self) -> Float[Tensor, "nodes vocabulary"]:
        """The logits of every node."""
        return self.scores(self.features, self.cards)

    @torch.no_grad()
    def scores(
        self, features: Float[Tensor, "nodes width"], cards: Float[Tensor, "vocabulary card"]
    ) -> Float[Tensor, "nodes vocabulary"]:
        """The logits of other nodes and tokens, without training."""
        return features.float() @ self.fit @ cards.float().T

    def policy_parameters(self) -> Iterator[Tensor]:
        """The matrix."""
        yield self.fit

    def arguments(self) -> dict[str, int]:
        """Sizes."""
        (nodes, width), (vocabulary, card_width) = self.features.shape, self.cards.shape
        return {"nodes": nodes, "width": width, "vocabulary": vocabulary, "card_width": card_width}


def question_features(tree: Tree, questions: Float[Tensor, "questions width"]) -> Float[Tensor, "nodes width+2"]:
    """Features of a router game's nodes: those of the question, 1, and whether an expert has been asked."""
    asked = [state for state in tree.states if isinstance(state, Asked)]
    said = torch.tensor([[1.0, float(bool(state.calls))] for state in asked])
    return torch.cat([questions[[state.question for state in asked]], said], 1)


def token_cards(experts: Float[Tensor, "experts width"]) -> Float[Tensor, "experts+1 width+2"]:
    """Cards of a router game's tokens: those of the experts, which experts and which answers; then the answer's."""
    tokens, width = len(experts) + 1, experts.shape[1]
    cards = torch.zeros(tokens, width + 2)
    cards[:-1, :width], cards[:-1, width], cards[-1, width + 1] = experts, 1, 1
    return cards
