"""``stress``: which techniques survive stale batches and a sampling engine that differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from stratagem.study.stress import Stress


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(stress)


def stress(
    names: Annotated[list[str], typer.Argument(help="Techniques of the catalogue, or YAML files.")],
    games: Annotated[list[str] | None, typer.Option("--game", help="Of the lab; may be repeated.")] = None,
    staleness: Annotated[list[int] | None, typer.Option(help="Batches ago; may be repeated. Default 0 2 8 32.")] = None,
    mismatch: Annotated[list[float] | None, typer.Option(help="Of the engine; may be repeated. Default 0.5.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each technique under each condition.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds; the others follow.")] = 0,
    batches: Annotated[int, typer.Option(min=1, help="Of each run.")] = 80,
    updates: Annotated[int, typer.Option(min=1, help="Optimizer steps on each batch.")] = 4,
    experts: Annotated[int, typer.Option(min=0, help="Of the policy; 0: a table.")] = 4,
    out: Annotated[Path, typer.Option(help="Folder of the results; one that is there goes on.")] = Path("runs/stress"),
    jobs: Annotated[int | None, typer.Option(min=1, help="Techniques side by side; default: one a core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Train techniques on batches ever more off-policy; success, and the largest importance ratio, in the lab."""
    from stratagem.lab import find_game
    from stratagem.study import stress as stressing
    from stratagem.study.stress_report import write_stress_report

    plain = stressing.Plan()
    for game in games or ():
        find_game(game)
    conditions = [stressing.Condition(each) for each in dict.fromkeys(staleness or [0, 2, 8, 32])]
    conditions += [stressing.Condition(mismatch=each) for each in dict.fromkeys(mismatch or [0.5]) if each]
    plan = stressing.Plan(
        tuple(games or plain.games),
        tuple(conditions),
        tuple(range(first_seed, first_seed + seeds)),
        batches,
        updates,
        experts=experts,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        found = stressing.stress(
            list(dict.fromkeys(names)),
            plan,
            out=out,
            jobs=jobs,
            progress=lambda done, total, arm: bar.update(task, completed=done, total=total, description=arm),
        )
    write_stress_report(found, out / "report.html")
    if as_json:
        print(found.to_json(), end="")
        return
    _print(found)
    print(f"results: {out}/results.json   report: {out}/report.html")


def _print(stress: Stress) -> None:
    from stratagem.study.stress_report import cells

    console = Console(highlight=False)
    table = Table("recipe", *(condition.name for condition in stress.plan.conditions), box=None, pad_edge=False)
    for arm in stress.endured:
        table.add_row(arm, *(f"{c.success} ({c.ratio}) {c.fate or ''}".rstrip() for c in cells(stress, arm)))
    console.print(table)
    console.print("final success (largest importance ratio), and whether it kept 80 % of its score", markup=False)
    for arm, reason in stress.refused.items():
        console.print(f"{arm} was not asked: {reason}", markup=False, soft_wrap=True)
