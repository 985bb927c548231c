"""``guide``: how far each problem has to be led along its solution for a model to solve it at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stratagem.cli.progress import progress_bar
from stratagem.cli.run_commands import Precision, Seed, parse_precision
from stratagem.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(guide)


def guide(
    task: Annotated[str, typer.Option(help="What the model is to be trained on, such as key_door or proof.")],
    out: Annotated[Path, typer.Option(help="Where to write the prefixes, for guided:TASK,prefixes=PATH.")],
    model: Annotated[
        str | None, typer.Option(help="Model folder or hub name; default: what a run starts with.")
    ] = None,
    problems: Annotated[int, typer.Option(min=1, help="Problems to try, from the first on.")] = 64,
    samples: Annotated[int, typer.Option(min=1, help="Episodes without a success that make a problem hard.")] = 128,
    tries: Annotated[int, typer.Option(min=1, help="Episodes of which one has to succeed with a prefix.")] = 16,
    share: Annotated[float, typer.Option(min=0, max=1, help="Most of a solution that is shown.")] = 0.25,
    increment: Annotated[float, typer.Option(min=0, max=1, help="By how much prefixes grow.")] = 0.05,
    search: Annotated[str, typer.Option(help="scan, or bisection, which tries fewer lengths.")] = "scan",
    seed: Seed = 0,
    precision: Precision = "auto",
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes played side by side.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds an environment may take for a step.")] = 30.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto (cuda where there is one).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Find the problems a model never solves, and the shortest beginnings of solutions from which it does."""
    from stratagem import run

    if search not in ("scan", "bisection"):
        raise InputError(f"--search {search}: must be scan or bisection")
    with progress_bar("sampling") as progress:
        found = run.guide(
            task,
            model,
            problems=problems,
            samples=samples,
            tries=tries,
            share=share,
            increment=increment,
            search=search,  # type: ignore[arg-type]
            seed=seed,
            precision=parse_precision(precision),
            concurrency=concurrency,
            timeout=timeout,
            device=device,
            progress=progress,
        )
    found.save(out)
    if as_json:
        print(json.dumps({"task": task, "model": model, "seed": seed, "out": str(out), **found.counts}, indent=2))
        return
    counts = found.counts
    console = Console(highlight=False)
    console.print(
        f"{problems} problems: {counts['easy']} solved without guidance, {counts['led']} led (of which "
        f"{counts['unsolved']} still unsolved), {counts['without_solution']} without a solution to show",
        markup=False,
    )
    if found.hard:
        console.print(f"stratagem train pope --task guided:{task},prefixes={out}", markup=False, soft_wrap=True)
    else:
        console.print("none is hard: nothing to guide", markup=False)
