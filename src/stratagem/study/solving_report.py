"""The page of a solved game: curves of what was measured, the payoffs of a population, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.games.metagame import Metagame, Mixture

LEAST = 1e-16
"""Exploitability that is drawn for less: float64 knows no smaller differences."""


@dataclass(frozen=True)
class Figure:
    """A column of the table. drawn: name of its curve, if it has one.  error: column of its standard errors."""

    name: str
    key: str
    drawn: str | None = None
    error: str | None = None


EXACT = (
    Figure("exploitability", "exploitability", "average"),
    Figure("of current strategies", "exploitability/current", "current"),
)
"""Of a solver on an enumerated game: its final strategies, and those it plays at the moment."""


def estimated(players: int) -> tuple[Figure, ...]:
    """Of a population on a game that is played."""
    bound, error = "exploitability/at_least", "exploitability/at_least_error"
    against = [
        Figure(
            f"player {player} against uniform",
            f"against_uniform/player{player}",
            f"player {player} against uniform players",
            f"against_uniform/error{player}",
        )
        for player in range(players)
    ]
    return (
        Figure("exploitability at least", bound, "exploitability at least", error),
        Figure("value", "value", None, "value/error"),
        *against,
    )


def write_solving_report(
    name: str,
    game: str,
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    facts: Mapping[str, Any],
    population: tuple[Metagame, Sequence[Mixture]] | None = None,
) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written.

    rows: metrics with ``step``, ``seconds`` and the columns of :data:`EXACT`, or else those of :func:`estimated`.
    facts: how large the game is.  population: the metagame of one and the mixtures that were found, of a solver that
    has one.
    """
    exact = not facts.get("played")
    figures = EXACT if exact else estimated(facts["players"])
    drawn = [figure for figure in figures if figure.drawn is not None]
    curves = [_curve(figure, rows, exact, COLORS[place % len(COLORS)]) for place, figure in enumerate(drawn)]
    for curve, dash in zip(curves, ("solid", *("dot",) * len(curves)), strict=False):
        curve["dash"] = dash
    return write_page(
        "solving.html.jinja",
        path,
        f"{name} on {game}",
        {"curves": curves, "payoffs": None if population is None else payoffs(*population), "exact": exact},
        columns=[figure.name for figure in figures],
        rows=[(row["step"], f"{row['seconds']:.4g}", *(_cell(row, figure) for figure in figures)) for row in rows],
        averaged=bool(rows[-1]["averaged"]) if rows else False,
        exact=exact,
        error=None if population is None or population[0].errors is None else f"{population[0].errors.max():.2g}",
        size=[(what.replace("_", " "), str(value)) for what, value in facts.items()],
        **origin(),
    )


def _curve(figure: Figure, rows: Sequence[Mapping[str, Any]], exact: bool, color: str) -> dict[str, Any]:
    """What the page draws of a figure, where it was measured."""
    known = [row for row in rows if figure.key in row]
    values = [max(row[figure.key], LEAST) if exact else row[figure.key] for row in known]
    return {
        "name": figure.drawn,
        "color": color,
        "step": [row["step"] for row in known],
        "seconds": [row["seconds"] for row in known],
        "values": values,
        "errors": None if figure.error is None else [2 * row[figure.error] for row in known],
    }


def _cell(row: Mapping[str, Any], figure: Figure) -> str:
    if figure.key not in row:
        return ""
    return f"{row[figure.key]:.4g}" + ("" if figure.error is None else f" ± {row[figure.error]:.2g}")


def payoffs(game: Metagame, mixtures: Sequence[Mixture]) -> dict[str, Any]:
    """What the first player's strategies earn against the second's, and how likely each strategy is.

    Strategies are numbered in the order they were found. Where there are more players, they play their mixtures; where
    there are several worlds, payoffs are means.
    """
    values = game.expected[0]
    for mixture in reversed(mixtures[2:]):
        values = values @ mixture
    return {"values": values.tolist(), "first": mixtures[0].tolist(), "second": mixtures[1].tolist()}
