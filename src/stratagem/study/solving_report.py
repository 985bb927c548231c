"""The page of a solved game: exploitability curves, the payoffs of a population, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.games.metagame import Metagame, Mixture

LEAST = 1e-16
"""Exploitability that is drawn for less: float64 knows no smaller differences."""

DRAWN = {"exploitability": "solid", "exploitability/current": "dot"}
"""Lines of a solver: its final strategies, and those it plays at the moment."""


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

    rows: metrics with ``step``, ``seconds``, ``exploitability`` and ``exploitability/current``.  facts: how large the
    game is.  population: the metagame of one and the mixtures that were found, of a solver that has one.
    """
    curves = [
        {
            "name": "average" if key == "exploitability" else "current",
            "color": COLORS[place],
            "dash": dash,
            "step": [row["step"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
            "exploitability": [max(row[key], LEAST) for row in rows],
        }
        for place, (key, dash) in enumerate(DRAWN.items())
    ]
    return write_page(
        "solving.html.jinja",
        path,
        f"{name} on {game}",
        {"curves": curves, "payoffs": None if population is None else payoffs(*population)},
        rows=[(row["step"], *(f"{row[key]:.4g}" for key in ("seconds", *DRAWN))) for row in rows],
        averaged=bool(rows[-1]["averaged"]) if rows else False,
        size=[(what.replace("_", " "), str(value)) for what, value in facts.items()],
        **origin(),
    )


def payoffs(game: Metagame, mixtures: Sequence[Mixture]) -> dict[str, Any]:
    """What the first player's strategies earn against the second's, and how likely each strategy is.

    Strategies are numbered in the order they were found. Where there are more players, they play their mixtures; where
    there are several worlds, payoffs are means.
    """
    values = game.expected[0]
    for mixture in reversed(mixtures[2:]):
        values = values @ mixture
    return {"values": values.tolist(), "first": mixtures[0].tolist(), "second": mixtures[1].tolist()}
