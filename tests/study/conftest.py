"""Run directories as training leaves them and comparisons as `compare` does, without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stratagem import catalogue
from stratagem.estimate import Estimate
from stratagem.study.comparison import Analysis, Band, Comparison, Contrast, Plan, Point, Summary, Trial
from stratagem.training.run_directory import RunDirectory
from stratagem.training.statistics import success_interval

MakeRun = Callable[..., RunDirectory]
MakeComparison = Callable[..., Comparison]


def evaluation_row(step: int, mode: str, successes: int, episodes: int = 100, **fields: Any) -> dict[str, Any]:
    share = successes / episodes
    interval = list(success_interval(successes, episodes))
    row = {"step": step, "mode": mode, "episodes": episodes, "success": share, "interval": interval}
    return row | {"mean_return": share, "std_return": 0.5, "mean_length": 8.0, "failed": 0, "samples": []} | fields


def transcript(episode: int, success: bool, text: str = "go east") -> dict[str, Any]:
    reward = float(success)
    messages = [{"role": "user", "content": "A door."}, {"role": "assistant", "content": text, "reward": reward}]
    how = {"reward": reward, "success": success, "truncated": not success, "failure": None}
    return {"episode": episode, "sample": 0, **how, "messages": messages}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Builds a run directory from a recipe name and the rows of its files."""

    def make(
        name: str = "run",
        recipe: str = "dr_grpo",
        seed: int = 0,
        steps: int = 2,
        metrics: list[dict[str, Any]] | None = None,
        evaluations: list[dict[str, Any]] | None = None,
        samples: list[dict[str, Any]] | None = None,
    ) -> RunDirectory:
        run = RunDirectory.create(tmp_path / name)
        run.write_text("recipe.yaml", catalogue.card(recipe).recipe().to_yaml())
        asked = {"recipe": recipe, "task": "key_door", "model": "tiny", "engine": "hf", "steps": steps, "seed": seed}
        run.write_json("run.json", asked)
        command = ["stratagem", "train", recipe, "--set", "sampler.group_size=<4>"]
        run.write_json("environment.json", {"command": command, "python": "3.11", "packages": {"torch": "2.13.0"}})
        for file, rows in (("metrics", metrics), ("evaluations", evaluations), ("samples", samples)):
            for row in rows or []:
                run.append(f"{file}.jsonl", row)
        return run

    return make


@pytest.fixture
def learned(make_run: MakeRun) -> RunDirectory:
    """A run of two steps that took success from 45 to 97 of 100 sampled, and nowhere greedily."""
    metrics = [
        {"step": step, "success": 0.5 * step, "reward": 0.5 * step, "entropy": 1.0 / step, "grad_norm": 0.3,
         "clip_fraction": 0.1, "tokens/sampled": 30.0, "completions/mean_length": 10.0,
         "timing/rollout": 60.0, "timing/learn": 30.0, "timing/tokens_per_second": 5000.0}
        for step in (1, 2)
    ]  # fmt: skip
    evaluations = [
        evaluation_row(0, "sampled", 45, samples=[transcript(7, False, "wait <b>here</b>")]),
        evaluation_row(0, "greedy", 60, samples=[transcript(7, False)]),
        evaluation_row(2, "sampled", 97, samples=[transcript(7, True)]),
        evaluation_row(2, "greedy", 62, samples=[transcript(7, True)]),
    ]
    return make_run(metrics=metrics, evaluations=evaluations, samples=[{"step": 1, **transcript(3, True)}])


@pytest.fixture(scope="session")
def make_comparison() -> MakeComparison:
    """Builds a comparison whose figures are worked out plainly: means, and intervals of 5 points to each side.

    Arm number k ends at success ``0.7 + lead k + 0.01 (seed - 2)``, from 0.4; greedy is 0.05 higher. A contrast with a
    difference of more than 5 points is better or worse.
    """

    def make(
        arms: Sequence[str] | Mapping[str, str] = ("grpo", "rloo"),
        tasks: Sequence[str] = ("key_door",),
        seeds: Sequence[int] = range(5),
        lead: float = 0.1,
        meetings: Sequence[dict[str, Any]] = (),
        command: str = "stratagem compare grpo rloo --task key_door --seeds 5",
    ) -> Comparison:
        named = isinstance(arms, Mapping)
        recipes = dict(arms) if named else {arm: catalogue.card(arm).recipe().to_yaml() for arm in arms}
        plan = Plan(recipes, () if named else tuple(recipes), tuple(tasks), tuple(seeds), 1000, None,
                    {"optimization.learning_rate": 0.001}, 2, 100, "float32", "cpu", 1)  # fmt: skip
        trials = [
            _trial(arm, task, seed, 0.7 + lead * place, meetings if seed == plan.seeds[0] else ())
            for task in tasks for place, arm in enumerate(recipes) for seed in seeds
        ]  # fmt: skip
        scopes = [*tasks, None] if len(tasks) > 1 else tasks
        analysis = Analysis(
            thresholds={task: 0.7 for task in tasks},
            summaries=tuple(_summary(arm, task, 0.7 + lead * k, len(plan.seeds))
                            for task in scopes for k, arm in enumerate(recipes)),
            contrasts=tuple(_contrast(arm, plan.reference, task, lead * k, quantity)
                            for task in scopes for k, arm in enumerate(recipes) if k for quantity in ("final", "area")),
            bands=tuple(_band(arm, task, 0.7 + lead * k, mode, axis) for task in tasks for k, arm in enumerate(recipes)
                        for mode in ("sampled", "greedy") for axis in ("tokens", "minutes")),
        )  # fmt: skip
        environment = {"python": "3.11", "packages": {"torch": "2.13.0"}}
        return Comparison(plan, tuple(trials), analysis, command, environment, dict.fromkeys(tasks, recipes))

    return make


def _trial(arm: str, task: str, seed: int, final: float, meetings: Sequence[dict[str, Any]]) -> Trial:
    end = final + 0.01 * (seed - 2)
    points = (Point(0, 0, 0.0, 0.4, 0.45), Point(5, 500, 30.0, 0.5, 0.55), Point(10, 1000, 60.0, end, end + 0.05))
    return Trial(arm, task, seed, "success", points, 1010, 60.0, 10, 512.0, 0, tuple(meetings))


def _around(value: float) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05)


def _summary(arm: str, task: str | None, final: float, seeds: int) -> Summary:
    scores = _around(final), _around(final + 0.05), _around(final / 2 + 0.2)
    return Summary(arm, task, seeds, seeds, *scores, 1000.0, seeds, 1010.0, 60.0, 512.0)


def _contrast(arm: str, reference: str, task: str | None, difference: float, quantity: Any) -> Contrast:
    verdict: Any = "better" if difference > 0.05 else "worse" if difference < -0.05 else "no difference"
    p = 0.5 if verdict == "no difference" else 0.004
    return Contrast(arm, reference, task, quantity, _around(difference), Estimate(0.9, 0.7, 1.0), p / 2, p, verdict)


def _band(arm: str, task: str, final: float, mode: Any, axis: Any) -> Band:
    x = np.linspace(0, 1000 if axis == "tokens" else 1.0, 41)
    value = 0.4 + (final - 0.4) * np.linspace(0, 1, 41) ** 0.7 + 0.05 * (mode == "greedy")
    lines = (tuple(map(float, line)) for line in (x, value, value - 0.05, value + 0.05))
    return Band(arm, task, mode, axis, *lines)
