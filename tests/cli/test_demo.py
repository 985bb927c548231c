"""``demo``: two runs, one report, and an exit code that says whether the promise was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stratagem.run import RunResult


def evaluations(before: float, after: float) -> list[dict[str, Any]]:
    return [
        {"step": step, "mode": mode, "success": success, "mean_return": success, "interval": [0.0, 1.0]}
        for step, success in ((0, before), (30, after))
        for mode in ("sampled", "greedy")
    ]


@pytest.fixture
def promised(stratagem, monkeypatch):
    """``promised(after)``: the demo with runs in which success rises from 0.25 to this."""
    asked: list[tuple[str, str, Path]] = []

    def call(after: float) -> tuple[Any, list[tuple[str, str, Path]]]:
        def train(recipe: str, task: str, *, out: Path, **_: Any) -> RunResult:
            asked.append((recipe, task, out))
            return RunResult(out, {}, evaluations(0.25, after))

        monkeypatch.setattr("stratagem.run.train", train)
        monkeypatch.setattr("stratagem.study.report.write_report", lambda runs, path, title: path)
        return stratagem("demo", "--out", "demo"), asked

    return call


def test_a_demo_that_learned_says_by_how_much(promised):
    said, asked = promised(0.75)
    assert (said.code, said.err) == (0, "")
    assert "learned: success rose by at least 50 points everywhere" in said.out
    assert "report: demo/report.html" in said.out
    assert asked == [("grpo", task, Path("demo") / task) for task in ("key_door", "textworld")]


def test_a_demo_that_did_not_learn_says_so_and_exits_with_1(promised):
    said, _ = promised(0.5)
    assert said.code == 1
    assert "did not learn as promised: the least rise is 25 points" in said.out


def test_runs_that_are_there_are_replaced(promised, tmp_path):
    old = tmp_path / "demo" / "key_door"
    old.mkdir(parents=True)
    (old / "run.json").write_text("{}")
    promised(0.75)
    assert not old.exists()
