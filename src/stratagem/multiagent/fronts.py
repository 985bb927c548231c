"""What stands before an agent's perceptron when what it sees has a form: a picture, or a set of neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratagem.errors import InputError
from stratagem.seeding import generator

FrontName = Literal["convolution", "messages"]


class Convolution(nn.Module):
    """Two 3x3 convolutions with ReLU over a window; what they give is read flat.

    shape: channels, height and width of the window.  width: channels of both layers.
    """

    def __init__(self, shape: Sequence[int], width: int, source: torch.Generator) -> None:
        super().__init__()
        channels, height, columns = shape
        self.shape, self.outputs = (channels, height, columns), width * height * columns
        self.first = _kernel(channels, width, source)
        self.second = _kernel(width, width, source)

    def forward(self, seen: Float[Tensor, "rows features"]) -> Float[Tensor, "rows outputs"]:
        """Flat windows in, flat features out."""
        hidden = torch.relu(self.first(seen.unflatten(1, self.shape)))
        return torch.relu(self.second(hidden)).flatten(1)


class Messages(nn.Module):
    """``[own, sum over neighbours j of phi(neighbour_j)]``: one round of messages, whose order does not matter.

    shape: numbers that are the agent's own; neighbours there may be; numbers of each, of which the first is 1 where
    there is one and 0 where the place is empty.  width: of ``phi``, two layers with tanh.
    """

    def __init__(self, shape: Sequence[int], width: int, source: torch.Generator) -> None:
        super().__init__()
        self.own, self.neighbours, self.numbers = shape
        self.outputs = self.own + width
        self.first = _layer(self.numbers, width, source)
        self.second = _layer(width, width, source)

    def forward(self, seen: Float[Tensor, "rows features"]) -> Float[Tensor, "rows outputs"]:
        """What the agent knows of itself, and what its neighbours come to."""
        own, others = seen[:, : self.own], seen[:, self.own :].unflatten(1, (self.neighbours, self.numbers))
        said = torch.tanh(self.second(torch.tanh(self.first(others))))
        return torch.cat([own, (said * others[..., :1]).sum(1)], 1)


FRONTS: dict[str, type[Convolution] | type[Messages]] = {"convolution": Convolution, "messages": Messages}

FORMS = {"convolution": "window", "messages": "neighbourhood"}
"""What a task says of its observations, for each front."""


def form_of(task: Any, front: FrontName) -> tuple[int, int, int]:
    """The form of a task's observations. Raises :class:`InputError` when they have none this front can read."""
    form: tuple[int, int, int] | None = getattr(task, FORMS[front], None)
    if form is None:
        raise InputError(f"task {task.name}: its observations are no {FORMS[front]}, which front = {front} reads")
    return form


def make_front(name: FrontName, shape: Sequence[int], width: int, seed: int, where: str) -> Convolution | Messages:
    """A fresh front; ``where`` names the network it stands before."""
    return FRONTS[name](shape, width, generator(seed, "front", where))


def _layer(inputs: int, outputs: int, source: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, math.sqrt(2), source)
    nn.init.zeros_(layer.bias)
    return layer


def _kernel(inputs: int, outputs: int, source: torch.Generator) -> nn.Conv2d:
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1)
    nn.init.orthogonal_(layer.weight, math.sqrt(2), source)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
