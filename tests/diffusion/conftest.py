"""A policy small enough to enumerate, with weights that make tokens depend on one another."""

from __future__ import annotations

import pytest
import torch

from stratagem.diffusion import DiffusionPolicy, Shape


@pytest.fixture
def policy() -> DiffusionPolicy:
    """Of 3 tokens, with a prompt of 2 and an answer of 3; a random network far from uniform."""
    made = DiffusionPolicy(Shape(vocabulary=3, positions=5, width=16), seed=1)
    with torch.no_grad():
        made.head.weight.mul_(3)
    return made
