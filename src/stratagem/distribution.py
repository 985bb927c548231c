"""What can be said of the distribution an action was drawn from, and of the score of the action in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

TOP = 50
"""Of so many tokens beside the chosen one a policy says the probability, where it cannot say all."""


def score(
    logp: Float[Tensor, "tokens vocabulary"], action: Int[Tensor, " tokens"]
) -> Float[Tensor, "tokens vocabulary"]:
    """``v = onehot(a) - pi``: gradient of ``log pi(a)`` by the logits."""
    chosen = action.unsqueeze(1)
    # 1 - pi(a) by itself would be rounded to 0 for an action that is nearly certain.
    return (-logp.exp()).scatter(1, chosen, -torch.expm1(logp.gather(1, chosen)))


def variance(probability: Float[Tensor, "tokens vocabulary"], values: Tensor) -> Float[Tensor, " tokens"]:
    """``u^T F u``, ``F = diag(pi) - pi pi^T`` the Fisher matrix by the logits: variance of ``u`` under ``pi``."""
    mean = (probability * values).sum(1, keepdim=True)
    return (probability * (values - mean).square()).sum(1)


def most_likely(
    logp: Float[Tensor, "tokens vocabulary"], action: Int[Tensor, " tokens"], others: int = TOP
) -> tuple[Int[Tensor, "tokens few"], Float[Tensor, "tokens few"]]:
    """The action and the ``others`` most likely tokens (all, when there are no more): ids and probabilities.

    The action is the first column. Probabilities are those of a distribution over these tokens alone: they add up to 1.
    """
    chosen = action.unsqueeze(1)
    few = min(others, logp.shape[1] - 1)
    ids = torch.cat([chosen, logp.scatter(1, chosen, -torch.inf).topk(few, dim=1).indices], 1)
    return ids, torch.softmax(logp.gather(1, ids), 1)


LIKELY = 5
"""How sure a policy is, is told by so many of the likeliest tokens."""


def sureness(logp: Float[Tensor, "tokens vocabulary"], likely: int = LIKELY) -> Float[Tensor, " tokens"]:
    """Mean probability of the ``likely`` likeliest tokens (all, when there are no more), in (0, 1 / likely].

    Of the whole distribution: among these tokens alone it would always be the same.
    """
    return logp.topk(min(likely, logp.shape[1]), dim=1).values.exp().mean(1)


OF_ACTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "score_square": lambda logp, action: score(logp, action).square().sum(1),
    "score_variance": lambda logp, action: variance(logp.exp(), score(logp, action)),
    "confidence": lambda logp, action: sureness(logp),
    "top_id": lambda logp, action: most_likely(logp, action)[0],
    "top_probability": lambda logp, action: most_likely(logp, action)[1],
}
"""Figures of :class:`PolicyOutput` that have no gradient, given all log-probabilities and the actions."""
