"""The learning curve as one small static picture, written as SVG by hand; it reads on white and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from stratagem.errors import InputError
from stratagem.study.outcome import MEAN_RETURN, MEASURES, MODES, Measure, Score, scores
from stratagem.study.record import RunRecord, read_runs
from stratagem.training.run_directory import RunDirectory

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which colour-blind people tell apart, without its black and its yellow."""

WIDTH, PLOT_HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM, LEGEND_ROW = 62, 20, 16, 48, 24
INK = "#767b84"  # 4.2 to 1 on white and on GitHub's dark ground alike


def write_curve_svg(runs: Sequence[RunDirectory], path: Path) -> Path:
    """Write held-out success (mean return where no task knows success) over steps, sampled and greedy, to ``path``.

    Bands are 95 % intervals. Runs without an evaluation stay out; with none at all the picture says so. Raises
    :class:`InputError` when there are no runs or ``path`` cannot be written.
    """
    return write_whole(path, curve_svg(read_runs(runs)))


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all. Raises :class:`InputError` when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        RunDirectory(path.parent).write_text(path.name, text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    return path


@dataclass(frozen=True)
class Line:
    """One curve: a run acting in one mode. Sampled is drawn solid, greedy dashed."""

    run: str
    mode: str
    color: str
    scores: list[Score]

    @property
    def dashed(self) -> bool:
        """Whether it is drawn dashed, with diamonds."""
        return self.mode != MODES[0]


def lines(records: Sequence[RunRecord], measure: Measure) -> list[Line]:
    """The curves of all runs judged by ``measure``. Colour tells runs apart, or the modes of a single run."""
    drawn = []
    for place, record in enumerate(records):
        for number, mode in enumerate(MODES):
            color = COLORS[(place if len(records) > 1 else number) % len(COLORS)]
            found = scores(record.evaluations, mode, measure) if record.outcome.measure == measure else []
            if found:
                drawn.append(Line(record.label, mode, color, found))
    return drawn


def curve_svg(records: Sequence[RunRecord]) -> str:
    """The picture as SVG text."""
    judged = [record.outcome.measure for record in records]
    measure = next((measure for measure in MEASURES if measure in judged), MEAN_RETURN)
    drawn = lines(records, measure)
    names = list(dict.fromkeys(line.run for line in drawn))
    top = TOP + LEGEND_ROW * max(len(names), 1)
    height = top + PLOT_HEIGHT + BOTTOM
    if drawn:
        plot = _Plot.around(drawn, measure, top)
        legend = (mark for line in drawn for mark in _legend(line, names.index(line.run)))
        curves = (mark for line in drawn for mark in _curve(plot, line))
        body = [*legend, *_grid(plot, measure), *curves]
    else:
        body = [_text(WIDTH / 2, height / 2, "no held-out evaluation yet", "middle")]
    title = f"Held-out {measure.name} over training steps: {', '.join(record.label for record in records)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">\n'
        f"<title>{escape(title)}</title>\n" + "\n".join(body) + "\n</svg>\n"
    )


@dataclass(frozen=True)
class _Plot:
    """The data ranges of the plot and where they lie in the picture."""

    steps: tuple[float, float]
    values: tuple[float, float]
    top: float

    @classmethod
    def around(cls, drawn: Sequence[Line], measure: Measure, top: float) -> _Plot:
        last = max(score.step for line in drawn for score in line.scores)
        steps = (0.0, float(max(last, 1)))
        if measure.percent:
            return cls(steps, (0.0, 1.0), top)
        bounds = [bound for line in drawn for score in line.scores for bound in _band(score)]
        margin = 0.05 * (max(bounds) - min(bounds)) or 1.0
        return cls(steps, (min(bounds) - margin, max(bounds) + margin), top)

    def x(self, step: float) -> float:
        low, high = self.steps
        return LEFT + (step - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.values
        return self.top + (high - value) / (high - low) * PLOT_HEIGHT


def _curve(plot: _Plot, line: Line) -> Iterator[str]:
    """Interval band, line and points."""
    place = [(plot.x(score.step), plot.y(score.value)) for score in line.scores]
    bands = [(plot.x(score.step), *map(plot.y, _band(score))) for score in line.scores]
    if len(place) > 1:
        edge = [(x, low) for x, low, _ in bands] + [(x, high) for x, _, high in reversed(bands)]
        yield f'<polygon points="{_points(edge)}" fill="{line.color}" opacity="0.15"/>'
        dashes = ' stroke-dasharray="7 5"' if line.dashed else ""
        yield f'<polyline points="{_points(place)}" fill="none" stroke="{line.color}" stroke-width="2.5"{dashes}/>'
    for x, low, high in bands:
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{line.color}" opacity="0.6"/>'
    yield from (_point(x, y, line) for x, y in place)


def _grid(plot: _Plot, measure: Measure) -> Iterator[str]:
    """Horizontal lines with their values, steps below, and what the axes are."""
    for value in ticks(*plot.values):
        y = plot.y(value)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{INK}" opacity="0.25"/>'
        yield _text(LEFT - 8, y + 4, measure.text(value), "end")
    bottom = plot.top + PLOT_HEIGHT
    for step in ticks(*plot.steps):
        if step == int(step):
            yield _text(plot.x(step), bottom + 20, f"{step:.0f}", "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 40, "training steps", "middle")
    middle = plot.top + PLOT_HEIGHT / 2
    yield _text(14, middle, f"held-out {measure.name}", "middle", f' transform="rotate(-90 14 {middle:.1f})"')


def _legend(line: Line, row: int) -> Iterator[str]:
    """One entry: a piece of the line, its mode, and after the last mode the run's name."""
    x, y = LEFT + MODES.index(line.mode) * 110, TOP + LEGEND_ROW * row
    dashes = ' stroke-dasharray="7 5"' if line.dashed else ""
    yield f'<line x1="{x}" x2="{x + 36}" y1="{y}" y2="{y}" stroke="{line.color}" stroke-width="2.5"{dashes}/>'
    yield _point(x + 18, y, line)
    yield _text(x + 44, y + 4, line.mode)
    if line.mode == MODES[0]:
        yield _text(LEFT + len(MODES) * 110, y + 4, line.run, extra=' font-weight="600"')


def _point(x: float, y: float, line: Line) -> str:
    if line.dashed:
        return f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z" fill="{line.color}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{line.color}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _band(score: Score) -> tuple[float, float]:
    return (score.low, score.high) if score.has_interval else (score.value, score.value)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between ``low`` and ``high``, at most ``most`` of them."""
    power = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    apart = next(power * times for times in (1, 2, 5, 10) if (high - low) / (power * times) <= most - 1)
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [number * apart for number in range(first, last + 1)]
