"""Small maps from what a policy has read to one number for each row; a fresh one says 0."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Table(nn.Module):
    """``value[row]``."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(rows))

    def forward(self, row: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The number of every row."""
        return self.value[row]


class Perceptron(nn.Module):
    """A linear map, or one behind two hidden layers with tanh and orthogonal weights.

    width: of the features.  hidden: of each hidden layer, 0 for none.  normalize: features are first brought to mean 0
    and deviation 1, row by row, as those of a language model need it, whose scale says nothing.
    """

    def __init__(self, width: int, hidden: int, source: torch.Generator, normalize: bool = False) -> None:
        super().__init__()
        sizes = [width, hidden, hidden] if hidden else [width]
        self.layers = nn.Sequential()
        if normalize:
            self.layers.append(nn.LayerNorm(width, elementwise_affine=False))
        for inputs, outputs in pairwise(sizes):
            layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
            nn.init.orthogonal_(layer.weight, math.sqrt(2), source)
            nn.init.zeros_(layer.bias)
            self.layers.extend([layer, nn.Tanh()])
        last = nn.Linear(sizes[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers.append(last)

    def forward(self, features: Float[Tensor, "rows width"]) -> Float[Tensor, " rows"]:
        """The number of every row."""
        numbers: Tensor = self.layers(features)
        return numbers.squeeze(-1)
