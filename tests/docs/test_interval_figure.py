"""The picture of a claim's quantity: everything lies where a hand puts it, and a word stands in for it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interval_figure import Axis, interval_figure, number

from stratagem.estimate import Estimate
from stratagem.study.claims import Expect


def marks(picture: str, kind: str) -> list[dict[str, str]]:
    """The attributes of every mark of this class."""
    return [mark.attrib for mark in ElementTree.fromstring(picture) if mark.get("class") == kind]


def labels(picture: str) -> dict[str, tuple[str, str]]:
    """Place and anchor by number."""
    texts = [mark for mark in ElementTree.fromstring(picture) if mark.tag == "text"]
    return {mark.text or "": (mark.attrib["x"], mark.attrib["text-anchor"]) for mark in texts}


def test_marks_lie_where_the_numbers_are():
    # From 0 (the bound) to 10 (the last seed) with a margin of 1: the axis runs from -1 to 11, so 0 is 1/12 along.
    picture = interval_figure(Expect("gain", above=0), Estimate(5, 2, 8), [1, 3, 10], "gain")
    assert marks(picture, "region")[0]["x"] == "8.33%"
    assert marks(picture, "region")[0]["width"] == "91.67%"
    assert (marks(picture, "bar")[0]["x1"], marks(picture, "bar")[0]["x2"]) == ("25.00%", "75.00%")
    assert marks(picture, "mean")[0]["cx"] == "50.00%"
    assert [seed["cx"] for seed in marks(picture, "seed")] == ["16.67%", "33.33%", "91.67%"]
    assert labels(picture) == {"0": ("8.33%", "start"), "5": ("50.00%", "middle")}


def test_a_region_below_begins_where_the_picture_does():
    picture = interval_figure(Expect("noise", below=10), Estimate(5, 0, 10), [], "noise")
    region = marks(picture, "region")[0]
    assert (region["x"], region["width"]) == ("0.00%", "91.67%")


def test_two_bounds_have_their_numbers_outside_so_that_these_never_meet():
    picture = interval_figure(Expect("bias", -1, 1), Estimate(100, 99, 101), [100], "bias")
    below, above = labels(picture)["-1"], labels(picture)["1"]
    assert (below[1], above[1]) == ("end", "start")
    region = marks(picture, "region")[0]
    # The axis spans 102 and a margin of 10.2 on each side; the region is 2 of it.
    assert float(region["width"][:-1]) == pytest.approx(100 * 2 / 122.4, abs=0.01)


def test_a_quantity_that_equals_its_bound_with_every_seed_can_be_drawn():
    picture = interval_figure(Expect("exact", above=0), Estimate(0, 0, 0), [0, 0], "exact")
    assert {seed["cx"] for seed in marks(picture, "seed")} == {"50.00%"}


def test_who_does_not_see_it_is_told():
    root = ElementTree.fromstring(interval_figure(Expect("noise", below=1), Estimate(2, 1, 3), [2], "noise is 2"))
    assert (root.get("role"), root.get("aria-label")) == ("img", "noise is 2")


def test_it_is_as_wide_as_the_page():
    picture = interval_figure(Expect("noise", below=1), Estimate(2, 1, 3), [2], "noise")
    assert 'width="100%"' in picture and "viewBox" not in picture


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_an_axis_holds_all_its_numbers(numbers):
    axis = Axis.around(numbers)
    assert all(0 <= axis.place(value) <= 100 for value in numbers)


def test_numbers_have_three_digits_and_stay_readable():
    assert [number(value) for value in (0.43219, -3, 12345.6, 1e-5)] == ["0.432", "-3", "12,346", "1e-05"]
    assert not re.search("e", number(1e6))
