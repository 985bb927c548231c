"""Exploitability of equilibrium solvers by iteration and second, as ``benchmarks.equilibria`` recorded it, as SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from panels import Axis, Panel

from stratagem.errors import InputError
from stratagem.study.curve import COLORS

PLACE = "<!-- equilibria figure -->"
"""The line of a page that the figure takes the place of."""

LEFT, TOP, WIDTH, HEIGHT, GAP, ROW = 48, 66, 156, 170, 16, 252
"""Pixels: of the first panel's corner, a panel's size, what lies between two, and from one row to the next."""

LEAST = 1e-12
"""Exploitability at the bottom, where rounding begins."""


class Row(NamedTuple):
    """Panels side by side. kind: of solvers.  against: what runs along the axis.  low: exploitability at the bottom."""

    kind: str
    against: str
    words: str
    low: float


ROWS = (
    Row("cfr", "step", "regret minimization, by iteration", LEAST),
    Row("cfr", "seconds", "the same, by time on one thread", LEAST),
    Row("population", "step", "populations, by responses of each player", 1e-3),
)


@dataclass(frozen=True)
class Course:
    """One solver on one game."""

    solver: str
    kind: str
    game: str
    step: Sequence[int]
    seconds: Sequence[float]
    exploitability: Sequence[float]


def equilibria_figure(path: Path) -> str:
    """The figure with its caption, as HTML. Raises :class:`InputError` for a file that is missing or broken."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        courses = [Course(*(curve[name] for name in Course.__dataclass_fields__)) for curve in recorded["curves"]]
        return f'<figure class="panels equilibria">{_svg(courses)}{_caption(recorded)}</figure>'
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        broken = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: is no recorded run of benchmarks.equilibria ({broken})") from None


def _svg(courses: Sequence[Course]) -> str:
    games = list(dict.fromkeys(course.game for course in courses))
    marks: list[str] = []
    for number, row in enumerate(ROWS):
        shown = [course for course in courses if course.kind == row.kind]
        colors = dict(zip(dict.fromkeys(course.solver for course in shown), COLORS, strict=False))
        y = TOP + number * ROW
        marks.append(f'<text class="row" x="{LEFT}" y="{y - 44}">{row.words}</text>')
        marks += _legend(colors, y - 28)
        up = Axis(row.low, 10 ** math.ceil(math.log10(max(max(course.exploitability) for course in shown))), True)
        for game in dict.fromkeys(course.game for course in shown):
            there = [course for course in shown if course.game == game]
            marks += _panel(there, row, up, colors, LEFT + games.index(game) * (WIDTH + GAP), y)
    label = escape("; ".join(map(_sentence, courses)), quote=True)
    size = f"0 0 {LEFT + len(games) * (WIDTH + GAP)} {TOP + len(ROWS) * ROW - 40}"
    return f'<svg role="img" aria-label="{label}" viewBox="{size}">{"".join(marks)}</svg>'


def _legend(colors: Mapping[str, str], y: float) -> Iterator[str]:
    x = LEFT
    for solver, color in colors.items():
        yield f'<line class="solver" stroke="{color}" x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}"/>'
        yield f'<text x="{x + 28}" y="{y}">{escape(solver)}</text>'
        x += 52 + 8 * len(solver)


def _panel(
    courses: Sequence[Course], row: Row, up: Axis, colors: Mapping[str, str], x: float, y: float
) -> Iterator[str]:
    along = [getattr(course, row.against) for course in courses]
    first = min(value for values in along for value in values if value > 0)
    panel = Panel(x, y, WIDTH, HEIGHT, Axis(first, max(values[-1] for values in along), logarithmic=True), up)
    powers = range(round(math.log10(up.low)), round(math.log10(up.high)) + 1)
    ticks = [power for power in powers if power % (3 if len(powers) > 6 else 1) == 0]
    labels = [f"1e{power}" if power else "1" for power in ticks] if x == LEFT else ()
    yield from panel.frame(escape(courses[0].game), [10.0**power for power in ticks], labels)
    for course, values in zip(courses, along, strict=True):
        drawn = [point for point in zip(values, course.exploitability, strict=True) if point[0] > 0]
        yield f'<polyline stroke="{colors[course.solver]}" points="{panel.points(drawn)}"/>'
    unit = " s" if row.against == "seconds" else ""
    yield from panel.below(f"{first:.1g}{unit}", f"{panel.across.high:.2g}{unit}" if unit else f"{panel.across.high}")


def _caption(recorded: Mapping[str, Any]) -> str:
    games = ", ".join(f"<code>{escape(game)}</code>" for game in recorded["games"].values())
    return (
        "<figcaption>Exploitability of the average strategies (populations: of their final mixtures), exact, in units "
        f"of utility; both axes are logarithmic. What lies below {LEAST:g} is drawn there. Games: {games}. Seconds are "
        f"those of iterating alone, the least of {recorded['repeats']} runs. Recorded by "
        f"<code>{escape(' '.join(recorded['command']))}</code>.</figcaption>"
    )


def _sentence(course: Course) -> str:
    return (
        f"{course.game}, {course.solver}: {course.exploitability[-1]:.2g} after {course.step[-1]} iterations, "
        f"{course.seconds[-1]:.2g} s"
    )
