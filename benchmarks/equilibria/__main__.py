"""How fast solvers come near an equilibrium, by iteration and by second, for the documentation.

    python -m benchmarks.equilibria [--out results/equilibria.json]

Variants of CFR play 1000 iterations, populations grow by 20 responses of each player. Exploitability is exact and
follows from no seed; seconds are those of iterating alone, on one thread, the least of three runs that take turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stratagem.games import VARIANTS, FlatGame, compile_game, find_solver, solve
from stratagem.training.run_directory import command_line, machine

GAMES = {
    "Kuhn": "kuhn_poker",
    "Leduc": "leduc_poker",
    "Goofspiel, 4 cards": "goofspiel(num_cards=4,imp_info=True,points_order=descending)",
    "Liar's Dice, 4 sides": "liars_dice(dice_sides=4)",
}
"""Games of OpenSpiel by the title of their panel."""

TITLES = {
    "cfr": "CFR",
    "cfr_plus": "CFR+",
    "dcfr": "DCFR",
    "pcfr_plus": "PCFR+",
    "dpcfr_plus": "DPCFR+",
    "vad_cfr": "VAD-CFR",
}

POPULATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "PSRO, uniform": ("psro", {"meta": "uniform"}),
    "PSRO, Nash": ("psro", {"meta": "nash"}),
    "PSRO, PRD": ("psro", {"meta": "prd"}),
    "alpha-PSRO": ("alpha_psro", {}),
    "SHOR-PSRO": ("shor_psro", {}),
}

POPULATED = ("Kuhn", "Leduc", "Goofspiel, 4 cards")
"""Where populations are grown: alpha-rank takes minutes in Liar's Dice."""

ITERATIONS, RESPONSES, REPEATS = 1000, 20, 3


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equilibria", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="file for the results (default: they are printed only)")
    asked = parser.parse_args()
    arms = {TITLES[name]: (name, {}) for name in VARIANTS}
    curves = []
    for title, name in GAMES.items():
        game = compile_game(name)
        curves += curves_of(title, game, "cfr", arms, ITERATIONS)
        if title in POPULATED:
            curves += curves_of(title, game, "population", POPULATIONS, RESPONSES)
    found = {
        "version": 1,
        "games": {title: f"spiel:{name}" for title, name in GAMES.items()},
        "iterations": {"cfr": ITERATIONS, "population": RESPONSES},
        "repeats": REPEATS,
        "curves": curves,
        "command": command_line(),
        "environment": machine(),
    }
    if asked.out is not None:
        asked.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def curves_of(
    title: str, game: FlatGame, kind: str, arms: Mapping[str, tuple[str, Mapping[str, Any]]], iterations: int
) -> list[dict[str, Any]]:
    """A curve of every solver on one game."""
    runs: dict[str, list[Sequence[Mapping[str, Any]]]] = {arm: [] for arm in arms}
    for _ in range(REPEATS):
        for arm, (name, arguments) in arms.items():
            runs[arm].append(solve(find_solver(name, **arguments), game, iterations=iterations).rows)
    curves = []
    for arm, repeats in runs.items():
        seconds = [min(row["seconds"] for row in rows) for rows in zip(*repeats, strict=True)]
        curve = {
            "solver": arm,
            "kind": kind,
            "game": title,
            "step": [row["step"] for row in repeats[0]],
            "seconds": [float(f"{second:.4g}") for second in seconds],
            "exploitability": [float(f"{row['exploitability']:.6g}") for row in repeats[0]],
        }
        curves.append(curve)
        print(f"{title:<22} {arm:<15} {curve['exploitability'][-1]:.3e}  {seconds[-1]:6.2f} s", flush=True)
    return curves


if __name__ == "__main__":
    main()
