"""``play``: players compared in a repeated game, or learners on a lattice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import counting_bar

if TYPE_CHECKING:
    from stratagem.multiagent.playing import Played


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(play)


def play(
    players: Annotated[list[str], typer.Argument(help="Such as brg tit_for_tat smoothed_tit_for_tat,memory=0.99.")],
    task: Annotated[
        str, typer.Option(help="A game, such as repeated:interrupted or lattice,side=10,temptation=0.2,start=0.4.")
    ],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Of learning, or of the game; the task's own by default.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of each player, side by side; the same draws for all.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/PLAYERS-TASK-seedS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Play a social dilemma again and again: cooperation and payoffs by round, as a table and as curves."""
    from stratagem.multiagent import playing

    with counting_bar(None) as progress:
        played = playing.play(
            players,
            task,
            rounds=rounds,
            runs=runs,
            seed=seed,
            out=out or Path("runs") / playing.run_name(players, task, seed),
            progress=progress,
        )
    if as_json:
        print(json.dumps(_plain(played), indent=2))
        return
    _show(played)


def _plain(played: Played) -> dict[str, object]:
    courses = [
        {"player": course.player, "seconds": course.seconds, "totals": course.summary(), "rows": course.rows()}
        for course in played.courses
    ]
    return {"task": played.task, "about": played.about, "players": courses, "directory": str(played.directory)}


def _show(played: Played) -> None:
    from stratagem.study.play_report import total

    console = Console(highlight=False)
    totals = list(played.courses[0].totals)
    table = Table("player", *totals, "seconds", box=None, pad_edge=False)
    for course in played.courses:
        figures = (total(course, name).replace("[", "\\[") for name in totals)
        table.add_row(course.player, *figures, f"{course.seconds:.1f}")
    console.print(table)
    steps = played.courses[0].rounds[-1]
    console.print(f"\n{played.about}; {steps:,} rounds, 95 % intervals over runs", markup=False, soft_wrap=True)
    console.print(f"metrics and report: {played.directory}", markup=False, soft_wrap=True)
