"""Games whose numbers can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from stratagem.lab import Exact, Outcome, TokenGame, Tree, over


def _both(state: str, tokens: tuple[int, ...]) -> Sequence[Outcome] | None:
    return None if len(tokens) < 2 else over(float(sum(tokens) == 2))


def _pull(state: float, tokens: tuple[int, ...]) -> Sequence[Outcome]:
    return [Outcome(None, state, 1.0, True), Outcome(None, 1 - state)] if tokens[0] else over(0.0)


@pytest.fixture
def both() -> Exact:
    """Two bits, right when both are 1: the first is 1 with probability 3/4, the second after it with 1/2.

    Nodes: 0 before the first bit, 1 after a 0, 2 after a 1.
    """
    tree = Tree.enumerate(TokenGame("both", "two ones", 2, ((1.0, "start"),), _both))
    return Exact(tree, torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [0.0, 0.0]]))


@pytest.fixture
def arms() -> Exact:
    """Two starts of equal odds where token 1 wins: always in the first, one time in ten in the second."""
    tree = Tree.enumerate(TokenGame("arms", "pull", 2, ((0.5, 1.0), (0.5, 0.1)), _pull))
    return Exact(tree, torch.zeros(2, 2))
