"""How much of the space of several objectives a set of points dominates, exactly and in any dimension."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stratagem.errors import InputError

Point = tuple[float, ...]


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume of the union of the boxes from ``reference`` up to each point; more of every objective is better.

    It is cut into slices along the first objective, each of which is a union with one objective less. A point that is
    not above the reference in every objective has a box without volume. Objectives should be of like scale.

    Raises :class:`InputError` for points of another dimension, no dimension, and numbers that are not finite.
    """
    floor = tuple(map(float, reference))
    corners = [tuple(map(float, point)) for point in points]
    for point in (floor, *corners):
        if not point or len(point) != len(floor) or not all(map(math.isfinite, point)):
            raise InputError(
                f"hypervolume: point {point}: must be {max(len(floor), 1)} finite numbers, as the reference {floor}"
            )
    return _volume([point for point in corners if all(map(float.__gt__, point, floor))], floor)


def gained(point: Sequence[float], points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """By how much a further point enlarges the hypervolume, at least 0. Raises as :func:`hypervolume` does."""
    return max(hypervolume([*points, point], reference) - hypervolume(points, reference), 0.0)


def _volume(points: list[Point], floor: Point) -> float:
    """Of points that are above the floor in every objective."""
    if len(floor) == 1:
        return max((point[0] for point in points), default=floor[0]) - floor[0]
    total, below = 0.0, floor[0]
    for edge in sorted({point[0] for point in points}):
        total += (edge - below) * _volume(_undominated([p[1:] for p in points if p[0] >= edge]), floor[1:])
        below = edge
    return total


def _undominated(points: list[Point]) -> list[Point]:
    """Those that no other one is at least as good as in every objective; of equal ones, one."""
    kept: list[Point] = []
    for point in sorted(set(points), reverse=True):
        if not any(all(map(float.__ge__, better, point)) for better in kept):
            kept.append(point)
    return kept
