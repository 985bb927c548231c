"""What figures of several panels share: where numbers lie, and the frame around them, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From ``low`` to ``high``; values outside lie on the border. logarithmic: powers of ten are evenly spaced."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Of the way from low to high."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


@dataclass(frozen=True)
class Panel:
    """A rectangle with its corner at ``x``, ``y``, in pixels, in which two axes say where a point lies."""

    x: float
    y: float
    width: float
    height: float
    across: Axis
    up: Axis

    def place(self, point: Point) -> str:
        """A point as SVG writes it."""
        return f"{self.x + self.width * self.across.share(point[0]):.1f},{self.level(point[1]):.1f}"

    def level(self, value: float) -> float:
        """How far down a value lies."""
        return self.y + self.height * (1 - self.up.share(value))

    def points(self, points: Iterable[Point]) -> str:
        """Many of them."""
        return " ".join(map(self.place, points))

    def frame(self, title: str, ticks: Sequence[float], labels: Sequence[str] = ()) -> Iterator[str]:
        """Title, border and a line at every tick. labels: of the ticks, to the left."""
        x, right = self.x, self.x + self.width
        yield f'<text class="title" x="{x:g}" y="{self.y - 6:g}">{title}</text>'
        yield f'<rect class="frame" x="{x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}"/>'
        for tick in ticks:
            y = f"{self.level(tick):.1f}"
            yield f'<line class="grid" x1="{x:g}" x2="{right:g}" y1="{y}" y2="{y}"/>'
        for tick, label in zip(ticks, labels, strict=bool(labels)):
            yield f'<text x="{x - 6:g}" y="{self.level(tick) + 4:.1f}" text-anchor="end">{label}</text>'

    def below(self, first: str, last: str) -> Iterator[str]:
        """What stands below the left and the right end."""
        yield f'<text x="{self.x:g}" y="{self.y + self.height + 15:g}">{first}</text>'
        yield f'<text x="{self.x + self.width:g}" y="{self.y + self.height + 15:g}" text-anchor="end">{last}</text>'
