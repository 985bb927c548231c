"""Comparisons: equal conditions for every arm, finished runs never again, and one clear line for what cannot be."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stratagem
from stratagem import recipes
from stratagem.errors import BrokenRunError, InputError
from stratagem.recipe import Recipe
from stratagem.study.comparison import Comparison, read_comparison
from stratagem.training.run_directory import RunDirectory

TASK = "gym:CartPole-v1"
SETTINGS: dict[str, Any] = {
    "seeds": 2,
    "budget": 300,
    "evaluations": 2,
    "episodes": 3,
    "values": {"sampler.prompts_per_step": 2, "sampler.group_size": 2},
}

Compare = Callable[..., Comparison]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """``compare(*arms, **settings)``: a comparison of seconds in ``tmp_path / "out"``."""

    def make(*arms: Any, **settings: Any) -> Comparison:
        named = arms[0] if len(arms) == 1 and isinstance(arms[0], dict) else arms
        return stratagem.compare(named, **{"task": TASK, "out": tmp_path / "out", **SETTINGS, **settings})

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """A comparison of two arms with two seeds, and its folder. Tests copy the folder before they change it."""
    out = tmp_path_factory.mktemp("compare")
    return out, stratagem.compare(["reinforce", "rloo"], TASK, out=out, **SETTINGS)


def run_rows(out: Path, name: str = "metrics.jsonl") -> dict[str, list[dict[str, Any]]]:
    """Logged rows of every run, by arm and seed, without what a clock or the memory of a process said."""
    measured = ("timing/", "memory/")
    return {
        f"{file.parts[-4]} {file.parts[-2]}": [
            {key: value for key, value in row.items() if not key.startswith(measured)}
            for row in RunDirectory(file.parent).rows(name)
        ]
        for file in sorted(out.glob(f"runs/*/*/*/{name}"))
    }


@pytest.mark.slow
def test_pass_at_k_entropy_and_length_of_every_arm(compare: Compare) -> None:
    comparison = compare("grpo", "rloo", task="rg:chain_sum", pass_at=2, budget=1000, episodes=2, evaluations=1)
    for summary in comparison.analysis.summaries:
        assert set(summary.figures) == {"pass@1", "pass@2", "entropy", "length"}
        assert summary.figures["pass@2"].value >= summary.figures["pass@1"].value
        assert summary.figures["length"].value > 0 and summary.figures["entropy"].value > 0


# ---- what a comparison holds ----------------------------------------------------------------------------------------


def test_every_arm_has_the_same_budget_and_evaluations(finished: tuple[Path, Comparison]) -> None:
    _, comparison = finished
    assert [(trial.arm, trial.seed) for trial in comparison.trials] == [
        ("reinforce", 0), ("rloo", 0), ("reinforce", 1), ("rloo", 1),
    ]  # fmt: skip
    for trial in comparison.trials:
        assert trial.tokens >= 300 and all(point.tokens < 300 for point in trial.points[:-1])
        assert trial.points[0].tokens == 0 and trial.points[-1].tokens == trial.tokens
        assert trial.measure == "mean return" and trial.peak_memory > 50 and trial.seconds > 0


def test_equal_seeds_start_from_the_same_policy_and_see_the_same_held_out_episodes(
    finished: tuple[Path, Comparison],
) -> None:
    _, comparison = finished
    first = {(trial.arm, trial.seed): trial.points[0] for trial in comparison.trials}
    for seed in (0, 1):
        assert first["reinforce", seed].sampled == first["rloo", seed].sampled
        assert first["reinforce", seed].greedy == first["rloo", seed].greedy
    assert first["rloo", 0].greedy != first["rloo", 1].greedy


def test_its_file_holds_all_of_it(finished: tuple[Path, Comparison]) -> None:
    out, comparison = finished
    assert read_comparison(out) == comparison == read_comparison(out / "results.json")
    assert comparison.analysis.summaries and (out / "report.html").stat().st_size > 10_000
    assert Recipe.from_yaml(comparison.recipes[TASK]["rloo"]).sampler.group_size == 2
    assert "/" not in comparison.command.split()[0]


def test_an_identical_recipe_under_two_names_makes_identical_runs(compare: Compare) -> None:
    comparison = compare({"one": "rloo", "other": "rloo"})
    assert {contrast.verdict for contrast in comparison.analysis.contrasts} == {"no difference"}
    assert {contrast.difference.value for contrast in comparison.analysis.contrasts} == {0.0}


def test_a_recipe_of_the_catalogue_is_adapted_and_a_recipe_or_file_taken_as_written(
    compare: Compare, tmp_path: Path
) -> None:
    written = recipes.rloo().with_values({"optimization.learning_rate": 0.125})
    (tmp_path / "mine.yaml").write_text(written.replace(name="mine").to_yaml())
    comparison = compare("rloo", tmp_path / "mine.yaml")
    ran = {arm: Recipe.from_yaml(text).optimization.learning_rate for arm, text in comparison.recipes[TASK].items()}
    assert ran == {"rloo": 1e-2, "mine": 0.125}


# ---- going on -------------------------------------------------------------------------------------------------------


def test_finished_runs_are_not_run_again(compare: Compare, tmp_path: Path) -> None:
    before = compare("reinforce", "rloo")
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("runs/*/*/*/*.jsonl")}
    after = compare("reinforce", "rloo")
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert dataclasses.replace(after, command=before.command) == before


def test_arms_and_seeds_are_added_to_what_is_there(compare: Compare, tmp_path: Path) -> None:
    compare("reinforce", "rloo")
    log = tmp_path / "out/runs/rloo"
    kept = {file: file.stat().st_mtime_ns for file in log.glob("*/*/metrics.jsonl")}
    wider = compare("rloo", "grpo", "reinforce", seeds=(0, 1, 2))
    assert len(wider.trials) == 9 and wider.plan.reference == "rloo"
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.slow
def test_a_killed_comparison_continues_with_the_numbers_of_an_unbroken_one(compare: Compare, tmp_path: Path) -> None:
    script = f"""
import stratagem
if __name__ == "__main__":
    stratagem.compare(["reinforce", "rloo"], {TASK!r}, out={str(tmp_path / "out")!r}, jobs=1, **{SETTINGS!r})
"""
    (tmp_path / "compare.py").write_text(script)
    comparing = subprocess.Popen([sys.executable, tmp_path / "compare.py"])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("runs/*/*/*/trial.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(comparing.pid, signal.SIGKILL)
    comparing.wait()
    assert len(list((tmp_path / "out").glob("runs/*/*/*/trial.json"))) < 4, "the kill came too late to show anything"
    compare("reinforce", "rloo")
    stratagem.compare(["reinforce", "rloo"], TASK, out=tmp_path / "unbroken", **SETTINGS)
    assert run_rows(tmp_path / "out") == run_rows(tmp_path / "unbroken")
    assert run_rows(tmp_path / "out", "evaluations.jsonl") == run_rows(tmp_path / "unbroken", "evaluations.jsonl")


def test_one_broken_run_loses_none_of_the_others(compare: Compare, tmp_path: Path) -> None:
    """A file stands where one run's directory would be."""
    compare("reinforce", "rloo")
    blocked = next((tmp_path / "out/runs/rloo").iterdir()) / "seed-2"
    blocked.write_text("in the way")
    with pytest.raises(BrokenRunError, match=r"1 of 6 runs broke, first rloo on .*, seed 2.*the same command tries"):
        compare("reinforce", "rloo", seeds=3)
    assert len(read_comparison(tmp_path / "out").trials) == 5
    blocked.unlink()
    assert len(compare("reinforce", "rloo", seeds=3).trials) == 6


# ---- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "settings", "line"),
    [
        (("rloo",), {}, "compare: needs at least two arms, got 1"),
        (("rloo", "rloo"), {}, "compare: arm rloo is named twice"),
        (("rloo", "grpp"), {}, "unknown recipe 'grpp'"),
        (("rloo", "grpo"), {"task": "key_dor"}, "unknown task 'key_dor'"),
        (("rloo", "grpo"), {"seeds": 1}, "seeds = 1: needs at least 2"),
        (("rloo", "grpo"), {"seeds": (3, 3)}, "seeds = [3, 3]: must be different"),
        (("rloo", "grpo"), {"budget": 0}, "budget = 0: must be at least 1"),
        (("rloo", "grpo"), {"task": "key_door", "threshold": 80}, "threshold = 80: tasks judged by success"),
        (("rloo", "grpo"), {"jobs": 0}, "jobs = 0: must be at least 1"),
        (("rloo", "grpo"), {"task": [TASK, TASK]}, "each only once"),
        (("rloo", "grpo"), {"values": {"sampler.size": 1}}, "arm rloo: unknown field"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_run(
    compare: Compare, tmp_path: Path, arms: tuple[str, ...], settings: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError) as refused:
        compare(*arms, **settings)
    assert line in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_task_without_held_out_episodes_is_refused(compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    task = f"jsonl:{tmp_path / 'sums.jsonl'},test_share=0"
    with pytest.raises(InputError, match=r"task jsonl:.*: has no held-out episodes to compare on"):
        compare("rloo", "grpo", task=task)


def test_a_budget_too_small_for_a_step_is_refused_and_another_may_be_tried(compare: Compare) -> None:
    with pytest.raises(InputError, match=r"on gym:CartPole-v1, seed 0: budget = 3 tokens: too small for one step"):
        compare("rloo", "grpo", budget=3)
    assert len(compare("rloo", "grpo").trials) == 4


def test_other_conditions_need_another_folder(finished: tuple[Path, Comparison]) -> None:
    out, _ = finished
    for change, line in [
        ({"budget": 301}, "holds runs with budget = 300, not 301"),
        ({"episodes": 4}, "holds runs with episodes = 3, not 4"),
    ]:
        with pytest.raises(InputError, match=line):
            stratagem.compare(["reinforce", "rloo"], TASK, out=out, **{**SETTINGS, **change})
    other = recipes.grpo()
    with pytest.raises(InputError, match="holds runs of another recipe named rloo"):
        stratagem.compare({"reinforce": "reinforce", "rloo": other}, TASK, out=out, **SETTINGS)


@pytest.mark.parametrize(("name", "reader"), [("results.json", "read"), ("plan.json", "compare")])
def test_files_of_another_version_are_refused(
    compare: Compare, tmp_path: Path, finished: tuple[Path, Comparison], name: str, reader: str
) -> None:
    plain = json.loads((finished[0] / name).read_text())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(json.dumps({**plain, "version": 99}))
    with pytest.raises(InputError, match=r"is of version 99"):
        if reader == "read":
            read_comparison(tmp_path / "out")
        else:
            compare("rloo", "grpo")
