"""Games whose answers are worth nothing by themselves: an oracle says which of two is preferred."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.preferences.games import bradley_terry
from stratagem.preferences.oracles import table
from stratagem.tasks.task import answer_key

CIRCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=torch.float64)
"""Rock, paper and scissors, one of which wins more: the minimax winner is (0.3, 0.3, 0.4)."""

LADDER = bradley_terry(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
"""Differences of scores, as Bradley and Terry have them: the first answer is the best one."""


def compared(name: str, description: str, wins: Float64[Tensor, "answers answers"]) -> TokenGame:
    """One prompt, and one token of so many for an answer; token ``i`` is preferred to ``j`` with ``wins[i, j]``.

    The oracle is a table, so that whatever is said of a policy is exact. The reward is the share of all answers that an
    answer is preferred to, ``mean_j wins[i, j]``, for recipes that learn from rewards: it puts answers in the order of
    the likeliest Bradley-Terry scores, whether or not such scores can stand for the preferences. An episode succeeds
    with the first answer in that order.
    """
    rewards = wins.mean(1)
    best = int(rewards.argmax())

    def act(state: str, tokens: tuple[int, ...]) -> list[Outcome]:
        return over(float(rewards[tokens[0]]), success=tokens[0] == best)

    oracle = table([answer_key((token,)) for token in range(len(wins))], wins)
    return TokenGame(name, description, len(wins), ((1.0, "start"),), act, oracle=oracle)


COMPARED_GAMES = (
    compared(
        "circle",
        "Three answers that beat each other in a circle: 0 is preferred to 1 in nine cases of ten, 1 to 2 and 2 to 0 "
        "in eight. Nobody beats the mixture of 0.3, 0.3 and 0.4, and every other policy is beaten by some answer.",
        CIRCLE,
    ),
    compared(
        "ladder",
        "Three answers with scores of 2, 1 and 0, compared as Bradley and Terry have it: the first is the best.",
        LADDER,
    ),
)
