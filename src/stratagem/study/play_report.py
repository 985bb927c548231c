"""The page of players in a repeated game or on a lattice: every measure by round, with bands, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stratagem.study.curve import COLORS
from stratagem.study.page import origin, write_page

if TYPE_CHECKING:
    from stratagem.multiagent.playing import Course, Played


def write_play_report(played: Played, path: Path, *, runs: int, seed: int) -> Path:
    """Write the page to ``path`` and return it. Raises :class:`InputError` when it cannot be written."""
    measures = list(dict.fromkeys(name for course in played.courses for name in course.measures))
    # A list, since JSON in a page is sorted by name.
    curves = [
        [
            _curve(course, name, COLORS[place % len(COLORS)])
            for place, course in enumerate(played.courses)
            if name in course.measures
        ]
        for name in measures
    ]
    totals = list(played.courses[0].totals)
    return write_page(
        "play.html.jinja",
        path,
        f"Players in {played.task}",
        {"curves": curves},
        played=played,
        measures=measures,
        runs=runs,
        totals=totals,
        rows=[(one.player, *(total(one, name) for name in totals), f"{one.seconds:.1f}") for one in played.courses],
        **origin(seed=seed),
    )


def _curve(course: Course, measure: str, color: str) -> dict[str, object]:
    rows = course.rows()
    return {
        "player": course.player,
        "color": color,
        "rounds": [row["step"] for row in rows],
        "mean": [row[measure] for row in rows],
        "low": [row[f"{measure}/low"] for row in rows],
        "high": [row[f"{measure}/high"] for row in rows],
    }


def total(course: Course, name: str) -> str:
    """A total with its interval: ``2.93 [2.92, 2.94]``."""
    mean, low, high = course.summary()[name]
    return f"{mean:.4g}" + ("" if low is None else f" [{low:.4g}, {high:.4g}]")
