"""``evolve``: generations of populations that learn a universe of tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import counting_bar
from stratagem.cli.run_commands import parse_values

if TYPE_CHECKING:
    from stratagem.openended.evolving import Evolved


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(evolve)


def evolve(
    recipe: Annotated[str, typer.Argument(help="Such as xland, or ppo for tasks as they come.")],
    task: Annotated[str, typer.Option(help="A universe of tasks, such as openended:grid.")],
    generations: Annotated[int, typer.Option(min=1, help="Each is taught by the best of the last.")] = 2,
    members: Annotated[int, typer.Option(min=1, help="Of the population.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="Of a generation; members are compared after each.")] = 4,
    interval: Annotated[int, typer.Option(min=1, help="Batches of every member in a round.")] = 5,
    tests: Annotated[int, typer.Option(min=1, help="Held-out tasks of the final test.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    values: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of the recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/evolve-RECIPE-TASK-seedS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Evolve learners and their curricula, generation after generation: percentiles of normalised scores."""
    from stratagem.openended.evolving import evolve as evolved
    from stratagem.openended.evolving import run_name
    from stratagem.openended.population import PopulationTraining

    with counting_bar(generations * rounds) as bar:

        def progress(generation: int, row: Mapping[str, Any]) -> None:
            bar(f"generation {generation}, score {max(row['score']):.3f}", (generation - 1) * rounds + row["round"])

        found = evolved(
            recipe,
            task,
            generations=generations,
            rounds=rounds,
            training=PopulationTraining(members=members, interval=interval),
            tests=tests,
            seed=seed,
            values=parse_values(values or []),
            out=out or Path("runs") / run_name(recipe, task, seed),
            progress=progress,
        )
    if as_json:
        print(json.dumps({"task": task, "results": found.rows(), "directory": str(found.directory)}, indent=2))
        return
    _show(found, tests)


def _show(found: Evolved, tests: int) -> None:
    from stratagem.openended.percentiles import ScoreBook

    console = Console(highlight=False)
    table = Table("agent", "10th", "20th", "50th", "participation", box=None, pad_edge=False)
    for row in found.rows():
        figures = (f"{row['curve'][at]:.3f}" for at in (10, 20, 50))
        table.add_row(row["agent"], *figures, f"{row['participation']:.3f}")
    console.print(table)
    alone = isinstance(found.book, ScoreBook)
    one = "the best of these agents" if alone else "the equilibrium of these agents, each in every seat,"
    console.print(f"\npercentiles of scores on {tests} held-out tasks, {one} counting 1", markup=False)
    console.print(f"policy, results and report: {found.directory}", markup=False, soft_wrap=True)
