"""``solve``: the equilibrium of a game, and how fast a solver comes near it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stratagem.cli.progress import counting_bar
from stratagem.cli.run_commands import parse_values
from stratagem.errors import InputError
from stratagem.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from stratagem.games import Solution


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(solve)


def solve(
    variant: Annotated[
        str | None,
        typer.Argument(
            help="cfr, cfr_plus, dcfr, pcfr_plus, dpcfr_plus, vad_cfr, psro, alpha_psro, shor_psro, rae or coffee_psro."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="A game, such as 'spiel:liars_dice(dice_sides=5)'.")] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Of the solver; all players learn in each. [default: 1000]")
    ] = None,
    values: Annotated[list[str] | None, typer.Option("--set", help="ARGUMENT=VALUE of the variant.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/VARIANT-TASK.")] = None,
    histories: Annotated[int, typer.Option(min=1, help="Of the largest game that is enumerated.")] = 1_000_000,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this directory, of a game played.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Find an equilibrium of a game: exploitability by iteration and second, and the strategies."""
    from stratagem import games
    from stratagem.games.solving import run_name

    if resume is not None:
        if variant is not None or task is not None or values or out is not None:
            raise InputError(
                f"--resume {resume}: goes on with the run as it was begun; only --iterations may be changed"
            )
        asked = RunDirectory.existing(resume).read_json("run.json")
        variant, task = str(asked.get("variant")), str(asked.get("task"))
        total = iterations or int(asked.get("iterations", 0))
        with _progress(variant, total) as progress:
            solution = games.resume(resume, iterations=iterations, progress=progress)
    elif variant is None or task is None:
        raise InputError(f"solve: {'a variant' if variant is None else '--task'} is needed, or --resume with a run")
    else:
        total = 1000 if iterations is None else iterations
        with _progress(variant, total) as progress:
            solution = games.solve(
                variant,
                task,
                iterations=total,
                arguments=parse_values(values or []),
                out=out or Path("runs") / run_name(variant, task),
                histories=histories,
                progress=progress,
            )
    if as_json:
        said = {
            "variant": variant,
            "task": task,
            "iterations": total,
            "exploitability": solution.exploitability,
            "value": solution.value,
            "averaged": solution.averaged,
            "directory": str(solution.directory),
            "rows": solution.rows,
        }
        print(json.dumps(said, indent=2))
        return
    _show(variant, solution, total)


def _show(variant: str, solution: Solution, iterations: int) -> None:
    from stratagem.games import CFR, FlatGame

    game, console = solution.game, Console(highlight=False)
    if isinstance(game, FlatGame):
        states = sum(len(player.parent) for player in game.players)
        size = f"{game.histories:,} histories, {states:,} information states"
    else:
        size = f"played, at most {game.spiel.max_game_length():,} moves of {game.actions:,} actions"
    console.print(f"{variant} on {game.name}: {size}\n", markup=False)
    console.print(_table(solution.rows, isinstance(game, FlatGame)))
    if not isinstance(game, FlatGame):
        console.print(
            "\nEstimates with their standard errors. What the strategies are exploitable by is at least what the "
            "newest responses gain over them; how much more, playing cannot tell."
        )
    last = solution.rows[-1]["step"]
    if last < iterations and "gain/player0" in solution.rows[-1]:
        console.print(f"\nIt ended after {last} iterations: the newest responses gained nothing.")
    elif last < iterations:
        console.print(f"\nIt was complete after {last} iterations; more would change nothing.")
    if isinstance(solution.solver, CFR) and not solution.averaged:
        warm_up = solution.solver.averaging.warm_up
        console.print(
            f"\nThere is no average yet: its first {warm_up} iterations do not count (--set warm_up=N). "
            "What is measured and saved are the current strategies."
        )
    console.print(f"\nstrategies, metrics and report: {solution.directory}", markup=False, soft_wrap=True)


def _table(rows: Sequence[Mapping[str, Any]], exact: bool) -> Table:
    """What was measured, by iteration."""
    table = Table(box=None, pad_edge=False)
    grows = "strategies/player0" in rows[-1]
    shown = ("exploitability", "current strategy") if exact else ("exploitability at least",)
    for column in ("iterations", "seconds", *shown, "value", *["strategies"] * grows):
        table.add_column(column, justify="right")
    for row in rows:
        if exact:
            measured = [f"{row['exploitability']:.3e}", f"{row['exploitability/current']:.3e}", f"{row['value']:+.5f}"]
        else:
            pairs = (("exploitability/at_least", "exploitability/at_least_error"), ("value", "value/error"))
            measured = [f"{row[key]:+.3f} ± {row[error]:.3f}" if key in row else "" for key, error in pairs]
        sizes = [f"{count:.0f}" for key, count in row.items() if key.startswith("strategies/")]
        table.add_row(f"{row['step']:,}", f"{row['seconds']:.3g}", *measured, *[" + ".join(sizes)] * grows)
    return table


@contextmanager
def _progress(variant: str, iterations: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    with counting_bar(iterations) as bar:

        def show(iteration: int, row: Mapping[str, float]) -> None:
            figures = f", exploitability {row['exploitability']:.2e}" if "exploitability" in row else ""
            bar(variant + figures, iteration)

        yield show
