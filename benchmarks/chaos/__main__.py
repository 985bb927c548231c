"""Runs on Ray while processes, nodes and disks fail, and says what they came to.

    python -m benchmarks.chaos [--scenario NAME ...] [--seeds 0 1 2] [--out results/chaos.json] [--logs FOLDER]

Every scenario is run with every seed, which is the run's and decides when things happen. Results are added to those
that the file holds, in place of those of the same scenario and seed. The exit code is 1 when one failed.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.chaos.processes import Leftover
from benchmarks.chaos.records import read, write
from benchmarks.chaos.runs import Bench, Wrong
from benchmarks.chaos.scenarios import SCENARIOS, Scenario
from benchmarks.chaos.volumes import NotHere

from stratagem.training.run_directory import machine


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", nargs="+", metavar="NAME", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="file for the results (default: they are printed only)")
    parser.add_argument("--logs", type=Path, help="folder for what runs that failed said and wrote")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # By way of what ends the run.
    references: dict[int, dict[str, float]] = {}
    rows = []
    for name in asked.scenario:
        for seed in asked.seeds:
            row = outcome(name, seed, references, asked.logs)
            rows.append(row)
            print(
                f"{name:<32} seed {seed}  {row['outcome']:<14} {row['seconds']:5.0f} s  {row['restarts']} restarts"
                + (f"  {row['why']}" if row["why"] else ""),
                flush=True,
            )
            if asked.out is not None:
                write(asked.out, [*read(asked.out), row])
    return int(any(row["outcome"] == "failed" for row in rows))


def outcome(name: str, seed: int, references: dict[int, dict[str, float]], logs: Path | None) -> dict[str, Any]:
    """Run a scenario once; its row of the results."""
    scenario: Scenario = SCENARIOS[name]
    found, why = "failed", None
    with (
        tempfile.TemporaryDirectory(prefix=f"chaos-{name}-{seed}-", ignore_cleanup_errors=True) as folder,
        closing(Bench(Path(folder), name, seed, references)) as bench,
    ):
        bench.reference()
        clock = time.monotonic()
        try:
            found = scenario(bench)
        except (Wrong, Leftover) as wrong:
            why = str(wrong)
        except NotHere as reason:
            found, why = "not here", str(reason)
        seconds = time.monotonic() - clock
        traces = bench.traces()
        if found == "failed" and logs is not None:
            shutil.copytree(folder, logs / f"{name}-{seed}", dirs_exist_ok=True)
    return {
        "scenario": name,
        "description": (scenario.__doc__ or "").strip(),
        "seed": seed,
        "commit": machine()["commit"],
        "outcome": found,
        "why": why,
        "seconds": round(seconds, 1),
        **traces,
    }


if __name__ == "__main__":
    sys.exit(main())
