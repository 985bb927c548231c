"""Exploitability of techniques in ``lab:circle`` by iteration, as ``benchmarks.circle`` recorded it, as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from stratagem.errors import InputError

PLACE = "<!-- circle figure -->"
"""The line of a page that the figure takes the place of."""

LEFT, TOP, WIDTH, HEIGHT, GAP, ROW = 46, 62, 172, 128, 18, 190
"""Pixels: of the first panel's corner, a panel's size, what lies between two, and from one row to the next."""

MOST = 0.4
"""Exploitability at the top of a panel."""

ROWS = {"table": "exact, as a table", "recipe": "the recipe, learned in the lab"}


@dataclass(frozen=True)
class Panel:
    """One technique done one way. last, average: exploitability by iteration and, within, by seed."""

    title: str
    way: str
    iteration: Sequence[int]
    last: Sequence[Sequence[float]]
    average: Sequence[Sequence[float]]


def circle_figure(path: Path) -> str:
    """The figure with its caption, as HTML. Raises :class:`InputError` for a file that is missing or broken."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        panels = [Panel(*(curve[name] for name in Panel.__dataclass_fields__)) for curve in recorded["curves"]]
        return f'<figure class="circle">{_svg(panels, recorded["best_score"])}{_caption(recorded)}</figure>'
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: is no recorded run of benchmarks.circle ({type(error).__name__}: {error})") from None


def _svg(panels: Sequence[Panel], best_score: float) -> str:
    columns = list(dict.fromkeys(panel.title for panel in panels))
    rows = [way for way in ROWS if any(panel.way == way for panel in panels)]
    width = LEFT + len(columns) * (WIDTH + GAP)
    marks = [*_legend()]
    for panel in panels:
        x, y = LEFT + columns.index(panel.title) * (WIDTH + GAP), TOP + rows.index(panel.way) * ROW
        marks += _panel(panel, x, y, best_score, numbered=panel.title == columns[0])
    for number, way in enumerate(rows):
        marks.append(f'<text class="row" x="{LEFT}" y="{TOP + number * ROW - 22}">{ROWS[way]}</text>')
    label = escape("; ".join(_sentence(panel) for panel in panels), quote=True)
    size = f"0 0 {width} {TOP + len(rows) * ROW - 16}"
    return f'<svg role="img" aria-label="{label}" viewBox="{size}">{"".join(marks)}</svg>'


def _legend() -> Iterator[str]:
    words = {
        "last": "the last policy",
        "average": "the mean of all policies so far",
        "best": "the answer that scores call best",
    }
    x = LEFT
    for kind, text in words.items():
        yield f'<line class="{kind}" x1="{x}" x2="{x + 26}" y1="10" y2="10"/>'
        yield f'<text x="{x + 32}" y="14">{text}</text>'
        x += 60 + 7 * len(text)


def _panel(panel: Panel, x: int, y: int, best_score: float, numbered: bool) -> Iterator[str]:
    end = panel.iteration[-1]

    def place(iteration: float, gap: float) -> str:
        return f"{x + WIDTH * iteration / end:.1f},{y + HEIGHT * (1 - min(gap, MOST) / MOST):.1f}"

    def line(gaps: Sequence[float]) -> str:
        return " ".join(place(*point) for point in zip(panel.iteration, gaps, strict=True))

    yield f'<text class="title" x="{x}" y="{y - 6}">{escape(panel.title)}</text>'
    yield f'<rect class="frame" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"/>'
    for tick in (0.0, 0.1, 0.2, 0.3):
        height = y + HEIGHT * (1 - tick / MOST)
        yield f'<line class="grid" x1="{x}" x2="{x + WIDTH}" y1="{height:.1f}" y2="{height:.1f}"/>'
        if numbered:
            yield f'<text x="{x - 6}" y="{height + 4:.1f}" text-anchor="end">{tick:g}</text>'
    level = y + HEIGHT * (1 - best_score / MOST)
    yield f'<line class="best" x1="{x}" x2="{x + WIDTH}" y1="{level:.1f}" y2="{level:.1f}"/>'
    for kind, gaps in (("average", panel.average), ("last", panel.last)):
        ends = [*zip(panel.iteration, map(max, gaps), strict=True)]
        back = [*zip(panel.iteration, map(min, gaps), strict=True)][::-1]
        yield f'<polygon class="{kind} band" points="{" ".join(place(*point) for point in [*ends, *back])}"/>'
        yield f'<polyline class="{kind}" points="{line([_mean(row) for row in gaps])}"/>'
    yield f'<text x="{x}" y="{y + HEIGHT + 15}">0</text>'
    yield f'<text x="{x + WIDTH}" y="{y + HEIGHT + 15}" text-anchor="end">{end} {_unit(panel)}</text>'


def _caption(recorded: Mapping[str, Any]) -> str:
    return (
        "<figcaption>Exploitability, which is 0 for the policy that nobody beats: how much more often than half the "
        f"best answer to a policy is preferred to it. Lines are means over {len(recorded['seeds'])} random starts, "
        f"bands go from the least to the largest. The game is <code>{escape(recorded['game'])}</code>; strength "
        f"{recorded['strength']:g}, step {recorded['step']:.2g}. Recorded by "
        f"<code>{escape(' '.join(recorded['command']))}</code>.</figcaption>"
    )


def _sentence(panel: Panel) -> str:
    return (
        f"{panel.title}, {ROWS[panel.way]}: exploitability after {panel.iteration[-1]} {_unit(panel)} "
        f"{_mean(panel.last[-1]):.3f}, of the mean policy {_mean(panel.average[-1]):.3f}"
    )


def _unit(panel: Panel) -> str:
    return "iterations" if panel.way == "table" else "batches"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
