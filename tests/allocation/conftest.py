"""Instances that several tests look at."""

from __future__ import annotations

import pytest

from stratagem.allocation import Instances


@pytest.fixture
def trap() -> Instances:
    """Tasks A (10; 10) and B (9; 10); x and y (1; 10) and z (5; 10)."""
    return Instances.single([(10, [10]), (9, [10])], [(1, [10]), (1, [10]), (5, [10])])
