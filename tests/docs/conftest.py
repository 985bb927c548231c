"""The hooks of the documentation, importable as MkDocs imports them, and a comparison on record."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from stratagem import catalogue
from stratagem.estimate import Estimate
from stratagem.study.comparison import Analysis, Comparison, Contrast, Plan, Point, Summary, Trial

sys.path.append(str(Path(__file__).parents[2] / "docs" / "hooks"))


@pytest.fixture
def a_comparison():
    """Makes a comparison of ``grpo`` with ``rloo``."""
    return _comparison


def _comparison(verdict="better", difference=0.1) -> Comparison:
    """``grpo`` at 70 %, ``rloo`` ten points above it at the end, without an area."""
    arms = {name: catalogue.card(name).recipe().to_yaml() for name in ("grpo", "rloo")}
    plan = Plan(arms, ("grpo", "rloo"), ("key_door",), (0, 1), 40_000, None, {}, 2, 100, "float32", "cpu", 1)
    points = (Point(0, 0, 0.0, 0.4, 0.4), Point(10, 40_000, 60.0, 0.7, 0.7))
    trials = [Trial(arm, "key_door", seed, "success", points, 1, 1.0, 1, 1.0, 0) for arm in arms for seed in (0, 1)]
    ends = {"grpo": Estimate(0.7, 0.65, 0.75), "rloo": Estimate(0.8, 0.75, 0.85)}
    given = dict.fromkeys((field.name for field in dataclasses.fields(Summary)), 2)
    summaries = [
        Summary(**{**given, "arm": arm, "task": "key_door", "final": end, "greedy": end, "area": end, "figures": {}})
        for arm, end in ends.items()
    ]
    change = Estimate(difference, difference - 0.05, difference + 0.05)
    contrast = Contrast("rloo", "grpo", "key_door", "final", change, change, 0.01, 0.02, verdict)
    return Comparison(plan, tuple(trials), Analysis({}, tuple(summaries), (contrast,), ()), "stratagem", {}, {})
