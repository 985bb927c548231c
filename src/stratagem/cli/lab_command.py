"""``lab``: what a technique makes of the exact gradient."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stratagem import catalogue
from stratagem.recipe import Recipe

if TYPE_CHECKING:
    from stratagem.estimate import Estimate
    from stratagem.lab import Diagnosis

LEGEND = (
    "bias: |E u - g| / |g| of the update u and the exact gradient g; direction: the same after the best rescaling; "
    "noise: groups needed for REINFORCE's precision, over REINFORCE's; gain: rise of the return by a step of length "
    "{step:g}, in percent of the exact gradient's; entropy: change by that step, in nats. Brackets: 95 % intervals."
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(lab)


def lab(
    names: Annotated[list[str], typer.Argument(help="Techniques of the catalogue, or YAML files.")],
    games: Annotated[list[str] | None, typer.Option("--game", help="Only this game; may be repeated.")] = None,
    groups: Annotated[int | None, typer.Option(min=1, help="Groups to draw; default 65536.")] = None,
    batch_groups: Annotated[int | None, typer.Option(min=1, help="Groups of a batch; default 512.")] = None,
    drift: Annotated[float, typer.Option(min=0, help="Move of the policy since sampling, in logits.")] = 0.0,
    stale_steps: Annotated[
        list[int] | None, typer.Option(min=0, help="Steps of the policy since sampling; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write the JSON to as well.")] = None,
) -> None:
    """Judge techniques where the gradient is known: bias, direction, noise, and what a step does to the return."""
    from stratagem.lab import GAMES, diagnose, find_game
    from stratagem.lab.diagnosis import GROUPS
    from stratagem.lab.record import LabRecord
    from stratagem.study.curve import write_whole

    recipes = [_recipe(name) for name in names]
    chosen = [find_game(name) for name in games] if games else list(GAMES.values())
    asked = [(game, recipe, steps) for game in chosen for recipe in recipes for steps in stale_steps or [0]]
    watched = Console(stderr=True)
    diagnoses = [
        diagnose(
            recipe,
            game,
            groups=groups or GROUPS,
            batch_groups=batch_groups,
            drift=drift,
            stale_steps=steps,
            seed=seed,
        )
        for game, recipe, steps in track(
            asked, "judging", console=watched, transient=True, disable=not watched.is_terminal
        )
    ]
    record = LabRecord({game.name: game.description for game in chosen}, tuple(diagnoses))
    if out is not None:
        write_whole(out, record.to_json())
    if as_json:
        print(record.to_json(), end="")
        return
    console = Console(highlight=False)
    for game in chosen:
        here = [diagnosis for diagnosis in diagnoses if diagnosis.game == game.name]
        console.print(f"[bold]{game.name}[/bold]: {game.description}", soft_wrap=True)
        for steps in dict.fromkeys(diagnosis.stale_steps for diagnosis in here):
            those = [diagnosis for diagnosis in here if diagnosis.stale_steps == steps]
            stale = f", {steps} steps after sampling" if steps else ""
            first = those[0]
            console.print(
                f"expected return {first.expected_return:.3f}, exact gradient {first.gradient_norm:.4f} long{stale}"
            )
            console.print(diagnosis_table([(diagnosis.recipe, diagnosis) for diagnosis in those]), end="\n\n")
    console.print(LEGEND.format(step=diagnoses[0].step), markup=False)


def _recipe(name: str) -> Recipe:
    return Recipe.load(name) if name.endswith((".yaml", ".yml")) else catalogue.card(name).recipe()


def diagnosis_table(diagnoses: Iterable[tuple[str, Diagnosis]], first: str = "recipe") -> Table:
    """Named diagnoses, one a row; ``first``: what the names are."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    table.add_column("verdict")
    for column in ("bias", "direction", "cosine", "noise", "gain", "entropy", "groups/s"):
        table.add_column(column, justify="right")
    for name, diagnosis in diagnoses:
        gain, entropy = diagnosis.gain, diagnosis.entropy_change
        table.add_row(
            name,
            diagnosis.verdict,
            _cell(diagnosis.bias),
            _cell(diagnosis.direction),
            _cell(diagnosis.cosine),
            _cell(diagnosis.noise, 2),
            "-" if gain is None else f"{100 * gain / diagnosis.exact_gain:.0f} %",
            "-" if entropy is None else f"{entropy:+.4f}",
            f"{diagnosis.groups_per_second:,.0f}",
        )
    return table


def _cell(estimate: Estimate | None, digits: int = 3) -> str:
    """The estimate with its interval; the bracket is escaped, since rich would take it for markup."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.{digits}f} \\[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
