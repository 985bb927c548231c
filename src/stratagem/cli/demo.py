"""``demo``: a tiny agent learns, in minutes, on two kinds of episodes it has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stratagem.cli.progress import progress_bar
from stratagem.cli.run_commands import before_and_after

RUNS = (("key_door", 30), ("textworld", 30))
"""Task and number of batches of each run."""

PROMISED_RISE = 0.30
"""Both kinds of success must rise by so much; fixed before any run."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(demo)


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the runs and the report; runs that are there are replaced.")
    ] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
) -> None:
    """Train a tiny language model as a multi-turn agent on a key-door grid and on text games, and show what it learned.

    Exits with 1 when sampled or greedy success on held-out episodes rose by less than 30 points on either task.
    """
    import shutil

    from stratagem.run import train
    from stratagem.study.report import write_report
    from stratagem.training.run_directory import RunDirectory

    console = Console(highlight=False)
    results = {}
    for task, steps in RUNS:
        shutil.rmtree(out / task, ignore_errors=True)
        console.print(f"training on {task}: {steps} batches of 8 start states x 8 episodes")
        with progress_bar(task) as progress:
            results[task] = train(
                "grpo",
                task,
                out=out / task,
                steps=steps,
                seed=seed,
                evaluate_every=5,
                evaluation_episodes=200,
                progress=progress,
            )
    console.print(before_and_after([(task, result.evaluations) for task, result in results.items()]))
    report = write_report(
        [RunDirectory(result.directory) for result in results.values()], out / "report.html", "A tiny agent learns"
    )
    console.print(f"report: {report}", markup=False)
    rises = [
        after["success"] - before["success"]
        for result in results.values()
        for before, after in (result.first_and_last("sampled"), result.first_and_last("greedy"))
    ]
    if min(rises) < PROMISED_RISE:
        console.print(f"did not learn as promised: the least rise is {100 * min(rises):.0f} points")
        raise typer.Exit(1)
    console.print(f"learned: success rose by at least {100 * min(rises):.0f} points everywhere")
