"""Run directories as training leaves them, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stratagem import catalogue
from stratagem.training.run_directory import RunDirectory
from stratagem.training.statistics import success_interval

MakeRun = Callable[..., RunDirectory]


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
