"""Games that several tests look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def rock() -> Tensor:
    """Rock, paper, scissors: 1 beats 0, 2 beats 1, 0 beats 2."""
    return torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=torch.float64)


@pytest.fixture
def reference() -> Tensor:
    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
