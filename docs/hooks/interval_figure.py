"""A claim's quantity as a picture: the region its rule asks for, the interval, and every seed, as SVG in a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from stratagem.estimate import Estimate
from stratagem.study.claims import Expect

Anchor = Literal["start", "middle", "end"]

MARGIN = 0.1
"""Of the axis beyond what it has to show, on each side, as a share of that."""

TOP, INTERVAL, SEEDS, AXIS, HEIGHT = 20, 32, 48, 60, 80
"""Vertical places in pixels: where the region begins, the interval, the seeds, the axis, and the end of the picture."""


@dataclass(frozen=True)
class Axis:
    """A horizontal axis from ``low`` to ``high``; places on it are percentages, so that it fits a page of any width."""

    low: float
    high: float

    @classmethod
    def around(cls, numbers: Sequence[float]) -> Axis:
        """The axis that shows all numbers with a margin; of width 1 and more where they are all the same."""
        low, high = min(numbers), max(numbers)
        margin = MARGIN * (high - low) or 0.5 * max(abs(low), 1.0)
        return cls(low - margin, high + margin)

    def place(self, number: float) -> float:
        """Where a number lies, in percent of the width."""
        return 100 * (number - self.low) / (self.high - self.low)


def interval_figure(expect: Expect, estimate: Estimate, values: Sequence[float], description: str) -> str:
    """The picture of one quantity, as wide as the page. ``description`` is read out in its place; it must be escaped.

    The region the rule asks for is shaded up to its bounds (or the end of the axis), with the mean and its 95 %
    interval as a bar, and ``values``, one for each seed, as dots.
    """
    bounds = [bound for bound in (expect.above, expect.below) if bound is not None]
    axis = Axis.around([*bounds, *values, estimate.value, estimate.low, estimate.high])
    marks = [
        *_region(axis, expect),
        *_bounds(axis, bounds),
        *_estimate(axis, estimate),
        *(f'<circle class="seed" cx="{axis.place(value):.2f}%" cy="{SEEDS}" r="4"/>' for value in values),
        f'<line class="axis" x1="0%" x2="100%" y1="{AXIS}" y2="{AXIS}"/>',
    ]
    return (
        f'<svg class="interval" role="img" aria-label="{description}" width="100%" height="{HEIGHT}">'
        f"{''.join(marks)}</svg>"
    )


def number(value: float) -> str:
    """Three significant digits, whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _region(axis: Axis, expect: Expect) -> Iterator[str]:
    left = 0.0 if expect.above is None else axis.place(expect.above)
    right = 100.0 if expect.below is None else axis.place(expect.below)
    yield f'<rect class="region" x="{left:.2f}%" width="{right - left:.2f}%" y="{TOP}" height="{AXIS - TOP}"/>'


def _bounds(axis: Axis, bounds: Sequence[float]) -> Iterator[str]:
    """Dashed lines with their numbers below; two numbers stand outside of their lines, so that they never meet."""
    for order, bound in enumerate(bounds):
        place = axis.place(bound)
        anchor: Anchor = _anchor(place) if len(bounds) == 1 else "start" if order else "end"
        yield f'<line class="bound" x1="{place:.2f}%" x2="{place:.2f}%" y1="{TOP}" y2="{AXIS + 4}"/>'
        yield _text(place, AXIS + 17, bound, anchor)


def _estimate(axis: Axis, estimate: Estimate) -> Iterator[str]:
    """The interval as a bar with the mean on it and its number above."""
    place, low, high = (axis.place(value) for value in (estimate.value, estimate.low, estimate.high))
    yield f'<line class="bar" x1="{low:.2f}%" x2="{high:.2f}%" y1="{INTERVAL}" y2="{INTERVAL}"/>'
    yield f'<circle class="mean" cx="{place:.2f}%" cy="{INTERVAL}" r="5.5"/>'
    yield _text(place, TOP - 7, estimate.value, _anchor(place))


def _text(place: float, y: int, value: float, anchor: Anchor) -> str:
    return f'<text x="{place:.2f}%" y="{y}" text-anchor="{anchor}">{number(value)}</text>'


def _anchor(place: float) -> Anchor:
    """Towards the middle of the picture where a centred text might be cut."""
    return "start" if place < 10 else "end" if place > 90 else "middle"
