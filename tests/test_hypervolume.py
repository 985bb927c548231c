"""The volume a set of points dominates."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from stratagem.errors import InputError
from stratagem.hypervolume import gained, hypervolume


def by_inclusion_and_exclusion(points: list[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            corner = [min(values) for values in zip(*chosen, strict=True)]
            sides = [max(c - r, 0.0) for c, r in zip(corner, reference, strict=True)]
            total -= (-1) ** size * math.prod(sides)
    return total


def test_it_is_the_area_and_volume_of_boxes_together():
    two = [(1, 2), (2, 1)]
    assert hypervolume(two, (0, 0)) == 3
    assert hypervolume([*two, (1.5, 1.5)], (0, 0)) == 3.25
    assert hypervolume([*two, (1, 1)], (0, 0)) == 3
    assert hypervolume([(1, 1, 1), (2, 0.5, 0.5)], (0, 0, 0)) == 1.25
    assert hypervolume([(3,), (2,)], (1,)) == 2
    assert hypervolume([], (0, 0)) == 0


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 5])
def test_it_agrees_with_inclusion_and_exclusion_in_any_order_and_grows_with_points(dims):
    source = random.Random(dims)
    for _ in range(200 if dims == 3 else 40):
        points = [tuple(source.uniform(-0.3, 1) for _ in range(dims)) for _ in range(5)]
        reference = tuple(source.uniform(-0.2, 0.2) for _ in range(dims))
        found = hypervolume(points, reference)
        assert found == pytest.approx(by_inclusion_and_exclusion(points, reference), abs=1e-10)
        assert hypervolume(source.sample(points, 5), reference) == pytest.approx(found, abs=1e-12)
        assert hypervolume(points[:4], reference) <= found + 1e-12


def test_what_a_point_gains_is_nothing_where_it_is_dominated_repeated_or_below_the_reference():
    two, reference = [(1.0, 2.0), (2.0, 1.0)], (0.0, 0.0)
    assert gained((1.5, 1.5), two, reference) == 0.25
    for point in ((1.0, 2.0), (0.5, 0.5), (-1.0, 9.0), (0.0, 9.0)):
        assert gained(point, two, reference) == 0


@pytest.mark.parametrize(
    ("points", "reference"), [([(1, 2)], (0, 0, 0)), ([(1, math.nan)], (0, 0)), ([(1, 2)], (0, -math.inf)), ([], ())]
)
def test_points_of_another_dimension_and_what_is_no_number_are_refused(points, reference):
    with pytest.raises(InputError, match="finite numbers, as the reference"):
        hypervolume(points, reference)


def test_the_area_under_a_front_counts_no_point_twice() -> None:
    floor = (0.0, 0.0)
    assert hypervolume([(1.0, 0.5), (0.5, 1.0)], floor) == 0.75
    assert hypervolume([(0.5, 1.0), (0.4, 0.9), (1.0, 0.5)], floor) == 0.75
    assert hypervolume([(0.5, 0.5), (0.5, 0.2)], floor) == 0.25
