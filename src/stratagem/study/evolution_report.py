"""The page of generations of populations: percentiles of scores, members over rounds, who copied whom, and knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stratagem.openended.percentiles import ScoreBook
from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.openended.evolving import Evolved

CHANCE = "#8a919b"
"""Colour of the policy that acts at random."""


def write_evolution_report(found: Evolved, path: Path, *, recipe: str, task: str, seed: int) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written."""
    learned = [row for row in found.rows() if row["agent"] != "random"]
    chance = [row for row in found.rows() if row["agent"] == "random"]
    curves = [
        {"agent": row["agent"], "color": color, "curve": row["curve"]}
        for row, color in [
            *((row, COLORS[place % len(COLORS)]) for place, row in enumerate(learned)),
            *((row, CHANCE) for row in chance),
        ]
    ]
    alone = isinstance(found.book, ScoreBook)
    knobs = list(dict.fromkeys(name for row in found.history for each in row["knobs"] for name in each))
    return write_page(
        "evolution.html.jinja",
        path,
        f"{recipe} evolved on {task}",
        {
            "curves": curves,
            "scores": [row["score"] for row in found.history],
            "best": [row.get("best") for row in found.history],
            "copies": [row["copies"] for row in found.history],
            "begins": _begins(found.history),
            # A list, since JSON in a page is sorted by name.
            "knobs": [[[each.get(name) for each in row["knobs"]] for row in found.history] for name in knobs],
            "colors": COLORS,
        },
        knobs=knobs,
        members=len(found.history[0]["score"]),
        generations=len(learned),
        tests=found.book.tasks,
        kept=int(found.book.kept.sum()),
        most="the most that any of these agents earned on a task"
        if alone
        else "what the first seat earns on a task in an equilibrium of these agents, each of whom may have any seat",
        nothing="nobody earned anything" if alone else "the first seat earns nothing in equilibrium",
        rows=[_row(found, row) for row in (*learned, *chance)],
        copied=_copied(found.history),
        **origin(seed=seed),
    )


def _begins(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the rounds with which generations after the first begin, counted from 1 over all of them."""
    told = [row["generation"] for row in history]
    return [place + 1 for place in range(1, len(told)) if told[place] != told[place - 1]]


def _row(found: Evolved, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the table: percentiles, participation, mean, and of a generation what it took."""
    figures = (*(f"{row['curve'][at]:.3f}" for at in (10, 20, 50)), f"{row['participation']:.3f}", f"{row['mean']:.3f}")
    if row["agent"] == "random":
        return (row["agent"], *figures, "—", "—")
    place = int(row["agent"].removeprefix("generation-")) - 1
    away = found.divergence[place]
    return (row["agent"], *figures, f"{found.steps[place]:,}", "—" if away != away else f"{away:.3f}")


def _copied(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Who copied whom in each round in which somebody did."""
    return [
        (
            f"generation {row['generation']}, round {row['round']}",
            ", ".join(f"member {one} from member {other}" for one, other in row["copies"]),
        )
        for row in history
        if row["copies"]
    ]
