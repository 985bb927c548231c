"""How techniques near the policy that nobody beats where answers beat each other in a circle, for the documentation.

    python -m benchmarks.circle [--seeds 0 1 2 3 4] [--out results/circle.json]

The game is ``lab:circle``, whose minimax winner is known. Every technique runs twice: as a table, exactly, and as the
recipe, which samples answers and takes gradient steps. What is recorded is the exploitability of its last policy and of
the mean of its policies so far, by iteration.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem import recipes
from stratagem.lab import Tree, find_game
from stratagem.lab.compared import CIRCLE
from stratagem.lab.world import LabTask
from stratagem.preferences.measures import exploitability
from stratagem.preferences.solvers import INPO, SPPO, Exact, NashMD, NashMP, OnlineDPO, Solver, fitted_scores, solve
from stratagem.recipe import Recipe
from stratagem.study.experiments import learn
from stratagem.training.run_directory import command_line, machine

GAME = "circle"
STRENGTH = 0.05
"""Of the KL to the policy a run began with, for all that have one."""

STEP = 1 / 3
"""Nats of log-ratio that a win rate of 1 is worth in one iteration, where a technique has a step size."""

ITERATIONS, BATCHES = 600, 120
POINTS = 60
"""Of a recorded curve."""

SAMPLED = {"sampler.prompts_per_step": 48}
SLOWER = 0.01
"""Learning rate of Nash-MD, a policy gradient, which at the lab's own overshoots the policy it is to stay near."""

Policies = Float64[Tensor, "iterations answers"]


@dataclass(frozen=True)
class Arm:
    """A technique as a table and as a recipe, at the same strength and step.

    learning_rate: of the recipe; None: the lab's.
    """

    title: str
    solver: Solver
    recipe: Callable[[], Recipe]
    learning_rate: float | None = None


ARMS = {
    "sppo": Arm("SPPO", SPPO(STEP), lambda: recipes.sppo(step_size=STEP)),
    "inpo": Arm("INPO", INPO(STRENGTH, 1 / STEP), lambda: recipes.inpo(1 / STEP, STRENGTH, group_size=5)),
    "nash_md": Arm("Nash-MD", NashMD(STRENGTH, STEP), lambda: recipes.nash_md(STRENGTH, group_size=5), SLOWER),
    "nash_mp": Arm("Nash-MP", NashMP(STRENGTH), lambda: recipes.nash_mp(STRENGTH, group_size=5)),
    "dpo": Arm("Scores (DPO)", OnlineDPO(STRENGTH, every_time=False), lambda: recipes.dpo(STRENGTH)),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.circle", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, help="file for the results (default: they are printed only)")
    asked = parser.parse_args()
    curves = []
    for name, arm in ARMS.items():
        for way, run in (("table", table), ("recipe", learned)):
            began = time.perf_counter()
            runs = [run(arm, seed) for seed in asked.seeds]
            curves.append(curve(name, arm.title, way, runs, asked.seeds))
            ends = "  ".join(f"{which} {mean(curves[-1][which]):.3f}" for which in ("last", "average"))
            print(f"{name:<11} {way:<7} {ends}  {time.perf_counter() - began:5.1f} s", flush=True)
    uniform = torch.full((len(CIRCLE),), 1 / len(CIRCLE), dtype=torch.float64)
    best = torch.nn.functional.one_hot(fitted_scores(CIRCLE, uniform).argmax(), len(CIRCLE)).double()
    found = {
        "version": 1,
        "game": f"lab:{GAME}",
        "strength": STRENGTH,
        "step": STEP,
        "prompts_per_step": SAMPLED["sampler.prompts_per_step"],
        "learning_rates": {name: arm.learning_rate for name, arm in ARMS.items() if arm.learning_rate is not None},
        "best_score": float(exploitability(CIRCLE, best)),
        "curves": curves,
        "seeds": asked.seeds,
        "command": command_line(),
        "environment": machine(),
    }
    if asked.out is not None:
        asked.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def table(arm: Arm, seed: int) -> Policies:
    """Every policy of the exact iteration, from where the recipe of this seed begins."""
    tree = Tree.enumerate(find_game(GAME))
    start = LabTask(find_game(GAME)).new_policy(tree, seed).table()[0].double().softmax(-1)
    return solve(arm.solver, Exact(CIRCLE), start, ITERATIONS).path


def learned(arm: Arm, seed: int) -> Policies:
    """The policy before every batch of a run in the lab, and in the end."""
    recipe = arm.recipe().with_values(SAMPLED)
    run = learn(recipe, LabTask(find_game(GAME)), seed, BATCHES, learning_rate=arm.learning_rate)
    return torch.stack([policy.logp[0].exp() for policy in run.policies])


def curve(name: str, title: str, way: str, runs: Sequence[Policies], seeds: Sequence[int]) -> dict[str, Any]:
    """Exploitability by iteration, and by seed within."""
    paths = torch.stack(list(runs), 1)
    count = torch.arange(1, len(paths) + 1, dtype=torch.float64).view(-1, 1, 1)
    shown = torch.linspace(0, len(paths) - 1, POINTS + 1).round().long().unique()
    gaps = {
        which: exploitability(CIRCLE.expand(*policies.shape[:2], -1, -1), policies)[shown]
        for which, policies in (("last", paths), ("average", paths.cumsum(0) / count))
    }
    return {
        "technique": name,
        "title": title,
        "way": way,
        "iteration": shown.tolist(),
        **{which: [[round(gap, 5) for gap in row] for row in rows.tolist()] for which, rows in gaps.items()},
        "ends": [[round(chance, 4) for chance in policy] for policy in paths[-1].tolist()],
    }


def mean(gaps: Sequence[Sequence[float]]) -> float:
    """Over seeds, in the end."""
    return sum(gaps[-1]) / len(gaps[-1])


if __name__ == "__main__":
    main()
