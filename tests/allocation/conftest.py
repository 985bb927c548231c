"""Instances that several tests look at."""

from __future__ import annotations

import pytest
import torch

from stratagem.allocation import Instances


@pytest.fixture
def trap() -> Instances:
    """Tasks A (10; 10) and B (9; 10); x and y (1; 10) and z (5; 10)."""
    return Instances.single([(10, [10]), (9, [10])], [(1, [10]), (1, [10]), (5, [10])])


def every_allocation(instances: Instances) -> torch.Tensor:
    """All ``(tasks + 1) ** entities`` allocations of an instance of this size."""
    choices = torch.arange(-1, instances.tasks)
    return torch.cartesian_prod(*[choices] * instances.entities).view(-1, instances.entities)


def repeated(instances: Instances, times: int) -> Instances:
    """A single instance, so many times."""
    return instances.at(torch.zeros(times, dtype=torch.int64))
