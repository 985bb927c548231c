"""Who may see whose action before its own: directed acyclic graphs over agents, fixed or drawn from learned logits."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratagem.control.policy import perceptron
from stratagem.seeding import generator

Edges = Literal["learned", "full", "line", "none"]

ENUMERATED = 6
"""With so many agents all orders are compared at once; with more, each assignment is solved by itself."""

SINKHORN_STEPS = 20


def fixed_dag(edges: Literal["full", "line", "none"], agents: int) -> Float[Tensor, "agents agents"]:
    """``G_kj = 1`` where agent ``k`` is a parent of agent ``j``: all before it, the one before it, or none."""
    whole = torch.ones(agents, agents)
    if edges == "none":
        return 0 * whole
    above = whole.triu(1)
    return above if edges == "full" else above - whole.triu(2)


class LearnedDag(nn.Module):
    """``G = U * (P^T M P)`` given what all agents see, with ``M`` all ones above the diagonal: acyclic, whatever ``U``.

    ``P``, an order of the agents, is a hard assignment of ``S = sinkhorn(log sigmoid(W(o)) + g)``; edges ``U`` are hard
    draws ``softmax(L(o) + g)`` of two logits each, with Gumbel noise ``g`` that the caller gives. Gradients are those
    of the soft ones (straight through).

    agents, features: of the game.  hidden: width of two hidden layers.  seed: of the weights.
    """

    def __init__(self, agents: int, features: int, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.agents = agents
        self.order_logits = perceptron(agents * features, hidden, agents**2, 0.01, generator(seed, "order"))
        self.edge_logits = perceptron(agents * features, hidden, 2 * agents**2, 0.01, generator(seed, "edges"))

    @staticmethod
    def noise_size(agents: int) -> int:
        """Numbers of Gumbel noise for one graph."""
        return 3 * agents**2

    def forward(
        self, seen: Float[Tensor, "rows all_features"], noise: Float[Tensor, "rows noise"]
    ) -> tuple[Float[Tensor, "rows agents agents"], Int[Tensor, "rows agents"]]:
        """The graphs, and agents in an order in which all parents come before."""
        n = self.agents
        for_order, for_edges = noise.split([n**2, 2 * n**2], 1)
        scores = nn.functional.logsigmoid(self.order_logits(seen)) + for_order
        soft = sinkhorn(scores.view(-1, n, n))
        order = assigned(soft.detach())
        place = straight_through(nn.functional.one_hot(order, n).to(soft.dtype), soft)
        edges = torch.softmax((self.edge_logits(seen) + for_edges).view(-1, n, n, 2), -1)
        open_ = straight_through((edges.argmax(-1) == 1).to(soft.dtype), edges[..., 1])
        above = torch.ones(n, n, dtype=soft.dtype, device=soft.device).triu(1)
        return open_ * (place.transpose(1, 2) @ above @ place), order


def sinkhorn(scores: Float[Tensor, "rows n n"]) -> Float[Tensor, "rows n n"]:
    """``exp(scores)`` with rows and columns scaled in turn until all add up to about 1."""
    for _ in range(SINKHORN_STEPS):
        scores = scores - scores.logsumexp(2, keepdim=True)
        scores = scores - scores.logsumexp(1, keepdim=True)
    return scores.exp()


def assigned(soft: Float[Tensor, "rows n n"]) -> Int[Tensor, "rows n"]:
    """For every place the one that is put there, so that ``sum_p soft[p, assigned[p]]`` is largest.

    Of several that are as good the first in lexical order is taken, with many agents the first that scipy finds.
    """
    n = soft.shape[1]
    if n > ENUMERATED:
        from scipy.optimize import linear_sum_assignment  # takes a second, which fewer agents need not wait

        return torch.tensor([linear_sum_assignment(one, maximize=True)[1].tolist() for one in soft.cpu().numpy()])
    orders = _orders(n).to(soft.device)
    score = soft[:, torch.arange(n, device=soft.device), orders].sum(-1)
    return orders[score.argmax(1)]


@cache
def _orders(n: int) -> Int[Tensor, "orders n"]:
    return torch.tensor(list(itertools.permutations(range(n))))


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of ``hard`` with the gradient of ``soft``."""
    return hard + (soft - soft.detach())
