"""``solve``: the equilibrium of a game, and how fast a solver comes near it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import counting_bar
from stratagem.cli.run_commands import parse_values

if TYPE_CHECKING:
    from stratagem.games import Solution


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(solve)


def solve(
    variant: Annotated[
        str,
        typer.Argument(
            help="cfr, cfr_plus, dcfr, pcfr_plus, dpcfr_plus, vad_cfr, psro, alpha_psro, shor_psro, rae or coffee_psro."
        ),
    ],
    task: Annotated[str, typer.Option(help="A game, such as 'spiel:liars_dice(dice_sides=5)'.")],
    iterations: Annotated[int, typer.Option(min=1, help="Of the solver; both players learn in each.")] = 1000,
    values: Annotated[list[str] | None, typer.Option("--set", help="ARGUMENT=VALUE of the variant.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/VARIANT-TASK.")] = None,
    histories: Annotated[int, typer.Option(min=1, help="Of the largest game that is enumerated.")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Find an equilibrium of a game: exploitability by iteration and second, and the strategies."""
    from stratagem import games
    from stratagem.games.solving import run_name

    with counting_bar(iterations) as bar:

        def progress(iteration: int, row: Mapping[str, float]) -> None:
            bar(f"{variant}, exploitability {row['exploitability']:.2e}" if row else variant, iteration)

        solution = games.solve(
            variant,
            task,
            iterations=iterations,
            arguments=parse_values(values or []),
            out=out or Path("runs") / run_name(variant, task),
            histories=histories,
            progress=progress,
        )
    if as_json:
        said = {
            "variant": variant,
            "task": task,
            "iterations": iterations,
            "exploitability": solution.exploitability,
            "value": solution.value,
            "averaged": solution.averaged,
            "directory": str(solution.directory),
            "rows": solution.rows,
        }
        print(json.dumps(said, indent=2))
        return
    _show(variant, solution, iterations)


def _show(variant: str, solution: Solution, iterations: int) -> None:
    from stratagem.games import CFR

    game, console = solution.game, Console(highlight=False)
    states = sum(len(player.parent) for player in game.players)
    size = f"{game.histories:,} histories, {states:,} information states"
    console.print(f"{variant} on {game.name}: {size}\n", markup=False)
    table = Table(box=None, pad_edge=False)
    grows = "strategies/player0" in solution.rows[-1]
    for column in ("iterations", "seconds", "exploitability", "current strategy", "value", *["strategies"] * grows):
        table.add_column(column, justify="right")
    for row in solution.rows:
        measured = (row["exploitability"], row["exploitability/current"])
        figures = (f"{row['seconds']:.3g}", *(f"{one:.3e}" for one in measured), f"{row['value']:+.5f}")
        sizes = [f"{count:.0f}" for key, count in row.items() if key.startswith("strategies/")]
        table.add_row(f"{row['step']:,}", *figures, *[" + ".join(sizes)] * grows)
    console.print(table)
    last = solution.rows[-1]["step"]
    if last < iterations:
        console.print(f"\nIt was complete after {last} iterations; more would change nothing.")
    if isinstance(solution.solver, CFR) and not solution.averaged:
        warm_up = solution.solver.averaging.warm_up
        console.print(
            f"\nThere is no average yet: its first {warm_up} iterations do not count (--set warm_up=N). "
            "What is measured and saved are the current strategies."
        )
    console.print(f"\nstrategies, metrics and report: {solution.directory}", markup=False, soft_wrap=True)
