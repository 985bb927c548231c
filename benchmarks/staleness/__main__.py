"""Runs on a local cluster beside the same in one process: equal numbers, and equal success when rollouts run ahead.

    python -m benchmarks.staleness [--seeds 0 1 2 3 4] [--steps 20] [--out results/cluster/staleness.json]

For every seed: one process, the cluster with staleness 0, and with staleness 2. The first two must agree in every
metric of every step to 1e-5. Of the third, held-out success after training is compared, paired by seed, with the 95 %
interval of Student's t. The exit code is 1 when numbers differ, or when that interval does not hold 0.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy import stats

from stratagem.training.ledger import audit_run
from stratagem.training.run_directory import RunDirectory, command_line, machine

NOT_COMPARED = ("timing/", "memory/", "workers/", "weights/")
"""Metrics of the clock and of who did the work."""

ARMS = {"one process": [], "cluster": ["--cluster", "local"], "ahead": ["--cluster", "local", "--staleness", "2"]}


def main() -> int:
    """Run all, print a table and a verdict; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.staleness", description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["grpo", "decoupled_ppo"])
    parser.add_argument("--task", default="key_door")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in asked.recipes:
            runs = [
                {arm: _run(recipe, asked, seed, arm, Path(folder) / f"{recipe}-{seed}-{arm}") for arm in ARMS}
                for seed in asked.seeds
            ]
            found[recipe] = _judged(runs, asked.seeds)
            print(f"{recipe}: {json.dumps(found[recipe])}", flush=True)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        record = {"command": command_line(), **machine(), "settings": vars(asked) | {"out": str(asked.out)}}
        asked.out.write_text(json.dumps({**record, "recipes": found}, indent=2) + "\n")
    return int(
        any(not (one["same_numbers"] and one["same_success"] and one["accounted_for"]) for one in found.values())
    )


def _run(recipe: str, asked: argparse.Namespace, seed: int, arm: str, out: Path) -> RunDirectory:
    command = [sys.executable, "-m", "stratagem", "train", recipe, "--task", asked.task, "--seed", str(seed)]
    command += ["--steps", str(asked.steps), "--episodes", str(asked.episodes), "--evaluate-every", "0"]
    command += ["--precision", "float32", "--out", str(out), *ARMS[arm]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return RunDirectory(out)


def _judged(runs: list[dict[str, RunDirectory]], seeds: list[int]) -> dict[str, Any]:
    difference = max(_difference(run["one process"], run["cluster"]) for run in runs)
    success = {arm: [_success(run[arm]) for run in runs] for arm in ARMS}
    gaps = [ahead - plain for ahead, plain in zip(success["ahead"], success["one process"], strict=True)]
    mean, half = statistics.fmean(gaps), math.inf
    if len(gaps) > 1:
        half = float(stats.t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    ages = [row["pipeline/staleness"] for run in runs for row in run["ahead"].rows("metrics.jsonl")]
    return {
        "seeds": seeds,
        "largest_difference": difference,
        "same_numbers": difference <= 1e-5,
        "success": success,
        "ahead_minus_one_process": [mean, mean - half, mean + half],
        "same_success": mean - half <= 0 <= mean + half,
        "mean_staleness": statistics.fmean(ages),
        "accounted_for": all(audit_run(run["ahead"]).proved for run in runs),
    }


def _difference(one: RunDirectory, other: RunDirectory) -> float:
    """The largest one in a metric of a step, relative where the metric is above 1."""
    mine, yours = one.rows("metrics.jsonl"), other.rows("metrics.jsonl")
    if len(mine) != len(yours):
        return math.inf
    return max(
        abs(value - after[name]) / max(1.0, abs(value))
        for before, after in zip(mine, yours, strict=True)
        for name, value in before.items()
        if not name.startswith(NOT_COMPARED) and not (math.isnan(value) and math.isnan(after[name]))
    )


def _success(run: RunDirectory) -> float:
    """Of the last sampled evaluation."""
    rows = [row for row in run.rows("evaluations.jsonl") if row["mode"] == "sampled"]
    return float(rows[-1]["success"])


if __name__ == "__main__":
    raise SystemExit(main())
