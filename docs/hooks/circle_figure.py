"""Exploitability of techniques in ``lab:circle`` by iteration, as ``benchmarks.circle`` recorded it, as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from panels import Axis, Panel

from stratagem.errors import InputError

PLACE = "<!-- circle figure -->"
"""The line of a page that the figure takes the place of."""

LEFT, TOP, WIDTH, HEIGHT, GAP, ROW = 46, 62, 172, 128, 18, 190
"""Pixels: of the first panel's corner, a panel's size, what lies between two, and from one row to the next."""

MOST = 0.4
"""Exploitability at the top of a panel."""

ROWS = {"table": "exact, as a table", "recipe": "the recipe, learned in the lab"}


@dataclass(frozen=True)
class Course:
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
        courses = [Course(*(curve[name] for name in Course.__dataclass_fields__)) for curve in recorded["curves"]]
        return f'<figure class="panels circle">{_svg(courses, recorded["best_score"])}{_caption(recorded)}</figure>'
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path}: is no recorded run of benchmarks.circle ({type(error).__name__}: {error})") from None


def _svg(courses: Sequence[Course], best_score: float) -> str:
    columns = list(dict.fromkeys(course.title for course in courses))
    rows = [way for way in ROWS if any(course.way == way for course in courses)]
    width = LEFT + len(columns) * (WIDTH + GAP)
    marks = [*_legend()]
    for course in courses:
        x, y = LEFT + columns.index(course.title) * (WIDTH + GAP), TOP + rows.index(course.way) * ROW
        panel = Panel(x, y, WIDTH, HEIGHT, Axis(0, course.iteration[-1]), Axis(0, MOST))
        marks += _drawn(course, panel, best_score, numbered=course.title == columns[0])
    for number, way in enumerate(rows):
        marks.append(f'<text class="row" x="{LEFT}" y="{TOP + number * ROW - 22}">{ROWS[way]}</text>')
    label = escape("; ".join(_sentence(course) for course in courses), quote=True)
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


def _drawn(course: Course, panel: Panel, best_score: float, numbered: bool) -> Iterator[str]:
    ticks = (0.0, 0.1, 0.2, 0.3)
    yield from panel.frame(escape(course.title), ticks, [f"{tick:g}" for tick in ticks] if numbered else ())
    level = f"{panel.level(best_score):.1f}"
    yield f'<line class="best" x1="{panel.x:g}" x2="{panel.x + WIDTH:g}" y1="{level}" y2="{level}"/>'
    for kind, gaps in (("average", course.average), ("last", course.last)):
        ends = [*zip(course.iteration, map(max, gaps), strict=True)]
        back = [*zip(course.iteration, map(min, gaps), strict=True)][::-1]
        line = zip(course.iteration, map(_mean, gaps), strict=True)
        yield f'<polygon class="{kind} band" points="{panel.points([*ends, *back])}"/>'
        yield f'<polyline class="{kind}" points="{panel.points(line)}"/>'
    yield from panel.below("0", f"{course.iteration[-1]} {_unit(course)}")


def _caption(recorded: Mapping[str, Any]) -> str:
    return (
        "<figcaption>Exploitability, which is 0 for the policy that nobody beats: how much more often than half the "
        f"best answer to a policy is preferred to it. Lines are means over {len(recorded['seeds'])} random starts, "
        f"bands go from the least to the largest. The game is <code>{escape(recorded['game'])}</code>; strength "
        f"{recorded['strength']:g}, step {recorded['step']:.2g}. Recorded by "
        f"<code>{escape(' '.join(recorded['command']))}</code>.</figcaption>"
    )


def _sentence(course: Course) -> str:
    return (
        f"{course.title}, {ROWS[course.way]}: exploitability after {course.iteration[-1]} {_unit(course)} "
        f"{_mean(course.last[-1]):.3f}, of the mean policy {_mean(course.average[-1]):.3f}"
    )


def _unit(course: Course) -> str:
    return "iterations" if course.way == "table" else "batches"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
