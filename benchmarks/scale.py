"""Tokens per second and utilization of runs on Ray, as multiples of the same run in one process.

    python benchmarks/scale.py [--rounds 3] [--steps 8] [--only NAME ...] [--out results/scale.json]

GRPO on the tiny model and ``key_door``, every arrangement in a process of its own and one after the other, round by
round. The learning rate is so small that the policy stays what it is, and so does the length of episodes: if it
learned, arrangements that learn better or worse would have other work to do. Steps after the warm-up count; what
starts and ends a run (Ray, actors, models, the saved policy) is told apart. Ratios of tokens per second are taken
within a round, to its run of ``hf`` in one process; given are medians over rounds, of the ratio with the least and
the greatest. Arrangements that need what is not installed are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Nothing here comes from a hub, and libraries are told so before they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from stratagem import run
from stratagem.cluster import Cluster
from stratagem.language import engines
from stratagem.study.record import PHASES

WARM_UP = 2
STANDING = 1e-9
"""A learning rate at which weights change, so that they are sent, and the policy does not."""
BASE = "one process, hf"


@dataclass(frozen=True)
class Arrangement:
    """How a run is laid out, and the packages it needs. cluster: fields of a :class:`Cluster`; None: one process."""

    cluster: Mapping[str, int] | None = None
    engine: str = "hf"
    needs: tuple[str, ...] = ()


_RAY = partial(Arrangement, needs=("ray",))

ARRANGEMENTS = {
    BASE: Arrangement(),
    "1 rollout worker": _RAY({}),
    "2 rollout workers": _RAY({"rollout_workers": 2}),
    "2 learners": _RAY({"learners": 2}),
    "staleness 1": _RAY({"staleness": 1}),
    "1 environment worker": _RAY({"environment_workers": 1}),
    "one process, vllm": Arrangement(engine="vllm", needs=("vllm",)),
    "1 rollout worker, vllm": Arrangement({}, "vllm", ("ray", "vllm")),
}
"""What is measured; on Ray there is one learner and one rollout worker where nothing else is said."""

PARTS = ("weights", "generate", "transport", "environments", "waiting and the rest", "credit", "learn")
"""Of a step. Rollouts are all up to ``credit``; rollout workers generate side by side, so theirs is a mean."""


@dataclass(frozen=True)
class Measured:
    """One run. start: seconds before the first step and after the last.  rows: metrics of the steps that count."""

    start: float
    rows: list[dict[str, float]] = field(repr=False)

    def total(self, name: str) -> float:
        """A metric, summed over the steps."""
        return sum(row.get(name, 0.0) for row in self.rows)

    @property
    def seconds(self) -> float:
        """Of the steps: rollouts, credit and learning. Writing metrics is not among them."""
        return sum(self.total(name) for name in PHASES)

    @property
    def rollout_speed(self) -> float:
        """Tokens per second while a batch is being collected."""
        tokens = self.total("tokens/sampled")
        return tokens / sum(row["tokens/sampled"] / row["timing/tokens_per_second"] for row in self.rows)

    @property
    def step_speed(self) -> float:
        """Tokens per second of whole steps."""
        return self.total("tokens/sampled") / self.seconds

    @property
    def learning(self) -> float:
        """Share of the steps in which the learner did not wait for rollouts."""
        return (self.total("timing/credit") + self.total("timing/learn")) / self.seconds

    @property
    def generating(self) -> float:
        """Share of the steps in which an engine generated, on average over rollout workers; above 1 never."""
        return min(self.total("timing/generate") / self.seconds, 1.0)

    @property
    def parts(self) -> dict[str, float]:
        """Of a step, as shares. Where rollouts run ahead, what they did meanwhile is not part of the step."""
        shares = {name: self.total(f"timing/{name}") / self.seconds for name in PARTS}
        inside = sum(shares[name] for name in ("generate", "transport", "environments"))
        rollout = self.total("timing/rollout") / self.seconds - shares["weights"]
        if any("timing/idle_learner" in row for row in self.rows):
            shares |= dict.fromkeys(("generate", "transport", "environments"), 0.0)
            inside = 0.0
        return shares | {"waiting and the rest": max(rollout - inside, 0.0)}


# ---- one run --------------------------------------------------------------------------------------------------------


def measure(name: str, steps: int, seed: int) -> Measured:
    """Run an arrangement, in a process that does nothing else."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    asked, rows, spent = ARRANGEMENTS[name], list[dict[str, float]](), [0.0]
    cluster = None if asked.cluster is None else Cluster(**asked.cluster)
    if cluster is None:
        engines.ENGINES["clocked"] = _clocked(asked.engine, spent)

    def progress(step: int, metrics: Mapping[str, float]) -> None:
        generate = {} if cluster is not None else {"timing/generate": spent[0]}
        rows.append({**metrics, **generate})
        spent[0] = 0.0

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run.train(
            "grpo",
            "key_door",
            engine="clocked" if cluster is None else asked.engine,
            cluster=cluster,
            precision="float32",
            device="cpu",
            steps=WARM_UP + steps,
            evaluation_episodes=0,
            checkpoint_every=WARM_UP + steps,
            values={"optimization.learning_rate": STANDING},
            seed=seed,
            out=Path(folder) / "run",
            progress=progress,
        )
    counted = rows[WARM_UP:]
    every = Measured(0.0, rows)
    return Measured(time.perf_counter() - began - every.seconds, counted)


def _clocked(engine: str, spent: list[float]) -> Any:
    """Makes the engine of this name, which adds the seconds it generates: in one process nobody else counts them."""

    def build(*given: Any) -> Any:
        made: Any = engines.ENGINES[engine](*given)
        generate = made.generate

        def clocked(requests: Any) -> Any:
            began = time.perf_counter()
            try:
                return generate(requests)
            finally:
                spent[0] += time.perf_counter() - began

        made.generate = clocked
        return made

    return build


# ---- all of them ----------------------------------------------------------------------------------------------------


def compared(names: Sequence[str], rounds: int, steps: int) -> dict[str, list[Measured]]:
    """Every arrangement in every round, by turns; the rounds differ in their seed."""
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                found[name].append(process.submit(measure, name, steps, number).result())
    return found


def summary(found: Mapping[str, list[Measured]]) -> dict[str, dict[str, Any]]:
    """Figures of every arrangement: ratios to the base by round, and medians of the shares."""
    base = found[BASE]
    return {
        name: {
            "rollouts": [one.rollout_speed / other.rollout_speed for one, other in zip(runs, base, strict=True)],
            "steps": [one.step_speed / other.step_speed for one, other in zip(runs, base, strict=True)],
            "start": [one.start / (other.seconds / len(other.rows)) for one, other in zip(runs, base, strict=True)],
            "learner": statistics.median(one.learning for one in runs),
            "engines": statistics.median(one.generating for one in runs),
            "parts": {part: statistics.median(one.parts[part] for one in runs) for part in PARTS},
        }
        for name, runs in found.items()
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Two tables in Markdown: speed and utilization, and the parts of a step."""
    lines = [
        "| | rollouts | whole steps | learner busy | engines busy | start, in steps |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in figures.items():
        start = statistics.median(one["start"])
        lines.append(
            f"| {name} | {_ratio(one['rollouts'])} | {_ratio(one['steps'])} | {one['learner']:.0%} | "
            f"{one['engines']:.0%} | {start:.0f} |"
        )
    lines += ["", "| share of a step | " + " | ".join(PARTS) + " |", "|---" * (len(PARTS) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{one['parts'][part]:.0%}" for part in PARTS) + " |"
        for name, one in figures.items()
    ]
    return "\n".join(lines)


def _ratio(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Print the tables, and what was left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help=f"that count, after {WARM_UP} that do not")
    parser.add_argument("--only", nargs="+", choices=list(ARRANGEMENTS), metavar="NAME", help="beside the base")
    parser.add_argument("--out", type=Path, help="file to write the figures to, as JSON")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.steps) < 1:
        parser.error("--rounds and --steps must be at least 1")
    asked = [name for name in ARRANGEMENTS if name == BASE or not arguments.only or name in arguments.only]
    lacking = {name: [need for need in ARRANGEMENTS[name].needs if find_spec(need) is None] for name in asked}
    names = [name for name in asked if not lacking[name]]
    packages = {need: version(need) for need in ("torch", "transformers", "ray") if find_spec(need) is not None}
    print(
        f"GRPO, key_door, tiny model, {arguments.rounds} round(s) of {arguments.steps} steps after {WARM_UP}, "
        f"{os.cpu_count()} processors, " + ", ".join(f"{name} {number}" for name, number in packages.items())
    )
    print(f"tokens per second as multiples of {BASE}\n", flush=True)
    figures = summary(compared(names, arguments.rounds, arguments.steps))
    print(table(figures))
    left_out = {name: needs for name, needs in lacking.items() if needs}
    for name, needs in left_out.items():
        print(f"\nleft out: {name} (needs {', '.join(needs)})")
    if arguments.out is not None:
        told = {
            "command": f"python benchmarks/scale.py --rounds {arguments.rounds} --steps {arguments.steps}",
            "machine": {"processors": os.cpu_count(), "architecture": platform.machine()},
            "packages": {"python": platform.python_version(), **packages},
            "left_out": left_out,
            "figures": figures,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
