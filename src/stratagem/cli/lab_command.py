"""``lab``: what a technique makes of the exact gradient. ``cliff``: how near a game's reward is to a policy cliff."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from stratagem import catalogue
from stratagem.errors import InputError

if TYPE_CHECKING:
    from stratagem.estimate import Estimate
    from stratagem.lab import CliffReport, Diagnosis

LEGEND = (
    "bias: |E u - g| / |g| of the update u and the exact gradient g; direction: the same after the best rescaling; "
    "noise: groups needed for REINFORCE's precision, over REINFORCE's; gain: rise of the return by a step of length "
    "{step:g}, in percent of the exact gradient's; entropy: change by that step, in nats. Brackets: 95 % intervals."
)

CLIFF_LEGEND = (
    "gap: value of the best token minus that of the second best, 0 at a tie; margin: minus that of the best token that "
    "does not tie; radius: no change of any episode's return by less than this changes the best token. Values are of "
    "whole episodes."
)

CLOSEST = 10
"""States shown to people; JSON has all of them."""


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(lab)
    app.command()(cliff)


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

    recipes = [catalogue.recipe(name) for name in names]
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


# ---- cliffs ---------------------------------------------------------------------------------------------------------


def cliff(
    game: Annotated[str, typer.Argument(help="A game of the lab.")],
    weight: Annotated[
        list[str] | None, typer.Option("--weight", help="NAME=VALUE: what a reward counts; may be repeated.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, help="Entropy bonus of the soft policy.")] = 0.1,
    epsilon: Annotated[float, typer.Option(min=0, help="Most a return is perturbed by.")] = 0.01,
    draws: Annotated[int, typer.Option(min=1, help="Perturbed rewards to draw.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """How near a game's reward is to a policy cliff: gaps, ties, weights at which the best policy changes."""
    from stratagem.lab import PolicyCliff, find_game

    chosen = find_game(game)
    diagnostic = PolicyCliff(temperature=alpha, epsilon=epsilon, draws=draws, seed=seed)
    report = diagnostic.of_game(chosen, dict(_weight(given) for given in weight or ()))
    if as_json:
        said = {"version": 1, "game": chosen.name, "description": chosen.description, **report.plain()}
        print(json.dumps(said, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(f"[bold]{chosen.name}[/bold]: {chosen.description}", soft_wrap=True)
    _show_cliff(report, console)


def _weight(given: str) -> tuple[str, float]:
    name, equals, value = given.partition("=")
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise InputError(f"--weight {given}: must be NAME=VALUE with a number")


def _show_cliff(report: CliffReport, console: Console) -> None:
    plain, moved = report.plain(), report.perturbation
    rewards = " + ".join(f"{weight:g} {name}" for name, weight in plain["rewards"].items())
    console.print(f"reward: {rewards}")
    console.print(f"{plain['visited']} of {plain['states']} states are on a best policy's way; {plain['tied']} tie\n")
    console.print(_closest_table(plain["closest"][:CLOSEST]))
    if plain["visited"] > CLOSEST:
        console.print(f"and {plain['visited'] - CLOSEST} more")
    if report.flips:
        console.print("\n[bold]The best policy changes[/bold] at these weights")
        console.print(_flip_table(report))
    else:
        console.print("\nThe best policy changes at no weight that was tried")
    tried = "; ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in report.scanned.items())
    console.print(f"tried: {tried}\n")
    console.print(
        f"Returns moved by at most {moved.epsilon:g} ({moved.draws} draws): best tokens change in "
        f"{100 * moved.changed:.1f} % of states, TV {moved.hard:.4f}; with entropy bonus {moved.temperature:g}, "
        f"TV {moved.soft:.4f} on average, {moved.soft_most:.4f} at most (bound {moved.soft_bound:.4f}), and "
        f"{report.soft_loss:.4f} less return than the best (bound {report.soft_loss_bound:.4f})."
    )
    console.print(CLIFF_LEGEND, markup=False)


def _closest_table(states: Iterable[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("state")
    table.add_column("best")
    for column in ("gap", "margin", "radius"):
        table.add_column(column, justify="right")
    for state in states:
        best = " ".join(map(str, state["best"]))
        numbers = ["-" if state[name] is None else f"{state[name]:.4f}" for name in ("gap", "margin", "radius")]
        table.add_row(state["state"].replace("[", "\\["), best, *numbers)
    return table


def _flip_table(report: CliffReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("reward", "weight", "states", *report.problem.names):
        table.add_column(column, justify="left" if column == "reward" else "right")
    for flip in report.flips:
        earned = [f"{flip.before[name]:.3f} to {flip.after[name]:.3f}" for name in report.problem.names]
        table.add_row(flip.component, f"{flip.weight:.4f}", str(len(flip.states)), *earned)
    return table
