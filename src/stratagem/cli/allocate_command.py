"""``allocate``: allocators of entities to tasks, compared by what they earn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import counting_bar
from stratagem.cli.run_commands import parse_values

if TYPE_CHECKING:
    from stratagem.allocation import Comparison


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(allocate)


def allocate(
    allocators: Annotated[
        list[str],
        typer.Argument(help="Such as two_stage_allocation genetic greedy random exact, or a folder of a saved policy."),
    ],
    task: Annotated[
        str,
        typer.Option(help="An allocation task, such as allocation:dynamic or allocation:static,slots=8,entities=32."),
    ],
    decisions: Annotated[int, typer.Option(min=1, help="That a technique learns from.")] = 20_000,
    episodes: Annotated[int, typer.Option(min=1, help="Held out; the same ones for all.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    values: Annotated[list[str] | None, typer.Option("--set", help="ARGUMENT=VALUE of the allocators.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/ALLOCATORS-TASK-seedS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Learn to allocate and compare with heuristics: return with intervals, and the time of a decision."""
    from stratagem import allocation
    from stratagem.allocation.allocating import run_name

    with counting_bar(decisions) as progress:
        found = allocation.allocate(
            allocators,
            task,
            decisions=decisions,
            episodes=episodes,
            seed=seed,
            arguments=parse_values(values or []),
            out=out or Path("runs") / run_name(allocators, task, seed),
            progress=progress,
        )
    if as_json:
        rows = [one.row(found.task) for one in found.results]
        print(json.dumps({"task": found.task, "results": rows, "directory": str(found.directory)}, indent=2))
        return
    _show(found, episodes)


def _show(found: Comparison, episodes: int) -> None:
    from stratagem.study.allocation_report import mean

    console = Console(highlight=False)
    table = Table("allocator", "return", "learning, s", "a decision, ms", box=None, pad_edge=False)
    for one in found.results:
        table.add_row(one.name, mean(one).replace("[", "\\["), f"{one.seconds:.1f}", f"{1000 * one.decision:.2f}")
    console.print(table)
    console.print(f"\nmean of {episodes} episodes of {found.task}, 95 % intervals over episodes", markup=False)
    console.print(f"results, policies and report: {found.directory}", markup=False, soft_wrap=True)
