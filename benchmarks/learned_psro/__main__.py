"""Exact exploitability of PSRO by responses learned by playing, beside PSRO by exact ones, for the documentation.

    python -m benchmarks.learned_psro [--seeds 0 1 2] [--out results/learned_psro.json]

The game is small enough to enumerate, so that learned responses are written down as tables and exploitability is exact
for both. What is recorded by iteration: exploitability of the final mixture, and the share of the best response's gain
over the mixture that the learned response reached, which says how good the learner is. Exact responses draw nothing and
run once. That learned responses are not greedy was chosen by shorter runs with seeds 1000 to 1002, nothing else was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stratagem.errors import InputError
from stratagem.games import FlatGame, Population, compile_game, psro
from stratagem.training.run_directory import command_line, machine

GAME = "leduc_poker"
META = "prd"
ITERATIONS = 12


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learned_psro", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--game", default=GAME, help="of OpenSpiel, small enough to enumerate")
    parser.add_argument("--meta", default=META, help="mixtures that are answered")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--steps", type=int, help="batches a response is learned from (default: the oracle's own)")
    parser.add_argument("--out", type=Path, help="file for the results (default: they are printed only)")
    asked = parser.parse_args()
    if asked.iterations < 1:
        raise SystemExit(f"--iterations {asked.iterations}: must be at least 1")
    try:
        game = compile_game(asked.game)
        exact = [course(psro(asked.meta).start(game), game, asked.iterations)]
        print(shown("exact", 0, exact[0]), flush=True)
        learned = []
        for seed in asked.seeds:
            began = time.perf_counter()
            solver = psro(asked.meta, oracle="learned", steps=asked.steps, seed=seed)
            learned.append(course(solver.start(game), game, asked.iterations))
            print(shown("learned", seed, learned[-1]), f" {time.perf_counter() - began:.0f} s", flush=True)
    except InputError as error:
        raise SystemExit(str(error)) from None
    found = {
        "version": 1,
        "game": asked.game,
        "meta": asked.meta,
        "iterations": asked.iterations,
        "learner": solver.oracle.made().flat(),  # type: ignore[attr-defined]
        "steps": solver.oracle.steps,  # type: ignore[attr-defined]
        "start": float(game.exploitability(game.uniform())),
        "curves": [{"oracle": "exact", **by_seed(exact)}, {"oracle": "learned", **by_seed(learned)}],
        "seeds": asked.seeds,
        "command": command_line(),
        "environment": machine(),
    }
    if asked.out is not None:
        asked.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def course(population: Population, game: FlatGame, iterations: int) -> dict[str, list[float]]:
    """By iteration: exploitability, and the gain of the responses over that of best responses, summed over players.

    A population that is complete stays as it is.
    """
    found: dict[str, list[float]] = {"exploitability": [], "share": []}
    for _ in range(iterations):
        if not population.finished:
            most = float(game.nash_conv(population.current()))
            population.advance(1)
            found["share"].append(round(sum(population.grown[-1].gains) / most, 4) if most > 1e-9 else 1.0)
        found["exploitability"].append(round(float(game.exploitability(population.average())), 6))
    return found


def by_seed(courses: Sequence[Mapping[str, list[float]]]) -> dict[str, list[list[float]]]:
    """Figures by name and seed."""
    return {name: [course[name] for course in courses] for name in courses[0]}


def shown(oracle: str, seed: int, found: Mapping[str, list[float]]) -> str:
    """A line for people."""
    gaps = " ".join(f"{gap:.3f}" for gap in found["exploitability"])
    return (
        f"{oracle:<8} seed {seed}: {gaps}; mean share of the best gain {sum(found['share']) / len(found['share']):.2f}"
    )


if __name__ == "__main__":
    main()
