"""``pull``: policies compared in a bandit by their exact regret."""

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
    from stratagem.bandits import Pulled


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(pull)


def pull(
    policies: Annotated[list[str], typer.Argument(help="Such as ucb1 thompson_sampling.")],
    task: Annotated[str, typer.Option(help="A bandit, such as bandit:bernoulli,arms=10 or bandit:recovering.")],
    rounds: Annotated[int, typer.Option(min=1, help="Of each run.")] = 5000,
    runs: Annotated[int, typer.Option(min=1, help="Of each policy, side by side; the same ones for all.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    values: Annotated[list[str] | None, typer.Option("--set", help="ARGUMENT=VALUE of the policies.")] = None,
    delay: Annotated[int, typer.Option(min=0, help="Rounds until a reward is known.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Rewards are known at the end of so many rounds.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/POLICIES-TASK-seedS.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Play policies in a bandit: regret by round with intervals over runs, as a table and as curves."""
    from stratagem import bandits
    from stratagem.bandits.pulling import run_name

    with counting_bar(rounds) as progress:
        pulled = bandits.pull(
            policies,
            task,
            rounds=rounds,
            runs=runs,
            seed=seed,
            arguments=parse_values(values or []),
            delivery=bandits.Delivery(delay, batch),
            out=out or Path("runs") / run_name(policies, task, seed),
            progress=progress,
        )
    if as_json:
        print(json.dumps(_plain(pulled), indent=2))
        return
    _show(pulled)


def _plain(pulled: Pulled) -> dict[str, object]:
    curves = [
        {"policy": curve.policy, "seconds": curve.seconds, "final": curve.rows()[-1], "rows": curve.rows()}
        for curve in pulled.curves
    ]
    return {"task": pulled.task, "against": pulled.against, "policies": curves, "directory": str(pulled.directory)}


def _show(pulled: Pulled) -> None:
    from stratagem.study.regret_report import last, proved

    console = Console(highlight=False)
    table = Table("policy", "regret", "at most, by theory", "a round", "seconds", box=None, pad_edge=False)
    for curve in pulled.curves:
        a_round = f"{curve.regret[-1] / curve.rounds[-1]:.4f}"
        table.add_row(curve.policy, last(curve).replace("[", "\\["), proved(curve), a_round, f"{curve.seconds:.1f}")
    console.print(table)
    steps = pulled.curves[0].rounds[-1]
    console.print(f"\nregret after {steps:,} rounds against {pulled.against}, 95 % intervals over runs", markup=False)
    console.print(f"metrics and report: {pulled.directory}", markup=False, soft_wrap=True)
