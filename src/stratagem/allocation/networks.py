"""Networks for any number of tasks and entities: scores of pairs, and a mixer of entities' values."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Scores = Literal["similarity", "perceptron"]
Mixing = Literal["attention", "sum"]


class PairScores(nn.Module):
    """One number for every pair of an entity and a task.

    ``similarity``: ``<phi(e), psi(t)>``, two perceptrons with one hidden layer (ReLU) to ``hidden`` numbers.
    ``perceptron``: ``w ReLU(A e + B t + b)``, which compares nothing.
    """

    def __init__(self, entity: int, task: int, hidden: int, scores: Scores, source: torch.Generator) -> None:
        super().__init__()
        self.scores = scores
        deep = scores == "similarity"
        self.entity = _embedding(entity, hidden, deep, source)
        self.task = _embedding(task, hidden, deep, source)
        self.last = None if deep else _linear(hidden, 1, source)

    def forward(
        self, entities: Float[Tensor, "*n entities a"], tasks: Float[Tensor, "*n tasks b"]
    ) -> Float[Tensor, "*n entities tasks"]:
        """Scores of all pairs."""
        of_entity, of_task = self.entity(entities), self.task(tasks)
        if self.last is None:
            scores: Tensor = of_entity @ of_task.transpose(-1, -2)
            return scores
        pair: Tensor = self.last(torch.relu(of_entity.unsqueeze(-2) + of_task.unsqueeze(-3)))
        return pair.squeeze(-1)


class AttentionMixer(nn.Module):
    """``Q = f(ReLU(q W))``: one value of all entities' own, whatever their number and order.

    ``W = softmax(K Q^T / sqrt(hidden)) V`` has a row for every entity; keys, queries, values and ``f`` are perceptrons
    with one hidden layer, the first three of the entities' attributes. Entities that are not free attend to nobody and
    nobody attends to them. (Attributes set to 0, as in the code released with arXiv 2407.00496, still speak by the
    biases.)
    """

    def __init__(self, entity: int, hidden: int, source: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden
        self.key, self.query, self.value = (_embedding(entity, hidden, True, source) for _ in range(3))
        self.head = _embedding(hidden, hidden, True, source, 1)

    def forward(
        self,
        own: Float[Tensor, "n entities"],
        entities: Float[Tensor, "n entities a"],
        free: Bool[Tensor, "n entities"],
    ) -> Float[Tensor, " n"]:
        """The mixed value. own: of each entity; those that are not free count for nothing."""
        scores = self.key(entities) @ self.query(entities).transpose(-1, -2) / math.sqrt(self.hidden)
        # Finite, so that a row without anybody free is no nan; it is blanked below.
        weights = scores.masked_fill(~free.unsqueeze(1), -1e9).softmax(-1)
        mixed = torch.einsum("ne,nef->nf", own.masked_fill(~free, 0.0), weights @ self.value(entities))
        value: Tensor = self.head(torch.relu(mixed))
        return value.squeeze(-1)


class SumMixer(nn.Module):
    """``Q = sum_i q_i`` over free entities: what a mixer is compared with."""

    def forward(
        self,
        own: Float[Tensor, "n entities"],
        entities: Float[Tensor, "n entities a"],
        free: Bool[Tensor, "n entities"],
    ) -> Float[Tensor, " n"]:
        """The sum; the attributes do not matter."""
        return own.masked_fill(~free, 0.0).sum(-1)


def make_mixer(mixing: Mixing, entity: int, hidden: int, source: torch.Generator) -> AttentionMixer | SumMixer:
    """The mixer of this name."""
    return AttentionMixer(entity, hidden, source) if mixing == "attention" else SumMixer()


def _linear(inputs: int, outputs: int, source: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=source)
    return layer


def _embedding(
    inputs: int, hidden: int, deep: bool, source: torch.Generator, outputs: int | None = None
) -> nn.Sequential | nn.Linear:
    first = _linear(inputs, hidden, source)
    if not deep:
        return first
    return nn.Sequential(first, nn.ReLU(), _linear(hidden, hidden if outputs is None else outputs, source))
