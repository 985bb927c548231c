"""Whom an agent attends to, by a latent code; and how likely codes are in a population of a size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.seeding import generator


class Relation(nn.Module):
    """``rel_ij^h = softmax_j <k^h(o_i), q^h(o_ij)> / sqrt(outputs)`` over others, a head ``h`` for each latent code.

    ``k`` and ``q`` are linear maps to ``width`` numbers a head. An agent whose code is ``h`` attends by head ``h``
    alone and reads ``f_i = sum_j rel_ij^h v(o_ij)``, with ``v`` a layer with tanh. So the order of others does not
    matter, nor does each of them being there twice; to an agent that is alone ``f_i = 0`` (arXiv 2108.12988).

    own: numbers an agent sees of itself.  numbers: of each other agent, of which the first is 1 where there is one.
    """

    def __init__(
        self, own: int, numbers: int, codes: int = 1, width: int = 16, outputs: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        self.codes, self.width, self.outputs = codes, width, outputs
        self.key = _linear(own, codes * width, generator(seed, "relation", "key"))
        self.query = _linear(numbers, codes * width, generator(seed, "relation", "query"))
        self.value = nn.Sequential(_linear(numbers, outputs, generator(seed, "relation", "value")), nn.Tanh())

    def weights(
        self, own: Float[Tensor, "rows own"], others: Float[Tensor, "rows others numbers"]
    ) -> Float[Tensor, "rows codes others"]:
        """``rel`` of all heads; 0 for others that are not there, whose weights add up to 1 unless nobody is."""
        key = self.key(own).unflatten(1, (self.codes, self.width))
        query = self.query(others).unflatten(2, (self.codes, self.width))
        scores = torch.einsum("rhw,rjhw->rhj", key, query) / self.outputs**0.5
        there = others[:, None, :, 0] > 0
        # Not -inf, whose softmax is not a number where nobody is there.
        return torch.softmax(scores.masked_fill(~there, -1e9), -1) * there


def attended(
    weights: Float[Tensor, "rows heads others"], values: Float[Tensor, "rows others outputs"]
) -> Float[Tensor, "rows heads outputs"]:
    """``f_i = sum_j rel_ij v(o_ij)`` of every head."""
    return torch.bmm(weights, values)


class TaskEncoder(nn.Module):
    """``log_softmax(MLP(n / 10) / 4)``: log-probabilities of latent codes in a population of ``n`` agents.

    The hidden layer has half as many units as there are codes, with tanh.
    """

    def __init__(self, codes: int, seed: int = 0) -> None:
        super().__init__()
        source, hidden = generator(seed, "task encoder"), max(codes // 2, 1)
        self.network = nn.Sequential(_linear(1, hidden, source), nn.Tanh(), _linear(hidden, codes, source))

    def forward(self, agents: Float[Tensor, " rows"]) -> Float[Tensor, "rows codes"]:
        """Given numbers of agents."""
        return torch.log_softmax(self.network(agents.unsqueeze(1) / 10) / 4, -1)


def _linear(inputs: int, outputs: int, source: torch.Generator) -> nn.Linear:
    """A linear map initialised as torch does, from this generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=source)
        layer.bias.uniform_(-bound, bound, generator=source)
    return layer
