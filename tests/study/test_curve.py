"""The static picture: valid SVG, the right points, round ticks, and words where there is nothing to draw."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.study.curve import ticks, write_curve_svg
from stratagem.training.run_directory import RunDirectory

SVG = "{http://www.w3.org/2000/svg}"
MakeRun = Callable[..., RunDirectory]


def drawn(path: Path) -> ElementTree.Element:
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def texts(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def test_draws_both_modes_where_the_numbers_are(learned: RunDirectory, tmp_path: Path) -> None:
    """The plot is 300 high for 0 to 100 %: from 45 to 97 % the sampled line climbs 0.52 of it, greedy 0.02."""
    picture = drawn(write_curve_svg([learned], tmp_path / "curve.svg"))
    climbs = []
    for line in picture.iter(f"{SVG}polyline"):
        (_, before), (_, after) = (tuple(map(float, point.split(","))) for point in line.attrib["points"].split())
        climbs.append(before - after)
    assert climbs == pytest.approx([0.52 * 300, 0.02 * 300], abs=0.11)
    assert {"sampled", "greedy", "dr_grpo", "100 %", "held-out success", "training steps"} <= set(texts(picture))


def test_greedy_is_dashed_and_runs_differ_in_colour(learned: RunDirectory, make_run: MakeRun, tmp_path: Path) -> None:
    other = make_run("other", recipe="rloo", evaluations=learned.rows("evaluations.jsonl"))
    curves = list(drawn(write_curve_svg([learned, other], tmp_path / "curve.svg")).iter(f"{SVG}polyline"))
    assert [("stroke-dasharray" in curve.attrib) for curve in curves] == [False, True, False, True]
    first, second, third, fourth = (curve.attrib["stroke"] for curve in curves)
    assert first == second != third == fourth


def test_a_run_without_evaluations_is_a_picture_that_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    assert texts(drawn(write_curve_svg([make_run()], tmp_path / "curve.svg"))) == ["no held-out evaluation yet"]


def test_a_single_evaluation_of_one_value_is_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    row = {"step": 0, "mode": "greedy", "episodes": 1, "success": None, "interval": None, "mean_return": 3.0}
    picture = drawn(write_curve_svg([make_run(evaluations=[row])], tmp_path / "curve.svg"))
    assert not list(picture.iter(f"{SVG}polyline"))
    assert "3" in texts(picture)


def test_names_are_escaped(learned: RunDirectory, make_run: MakeRun, tmp_path: Path) -> None:
    other = make_run("a<b&c", evaluations=learned.rows("evaluations.jsonl"))
    assert "a<b&c" in texts(drawn(write_curve_svg([learned, other], tmp_path / "curve.svg")))


def test_a_path_that_cannot_be_written_is_an_input_error(learned: RunDirectory) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_curve_svg([learned], learned.path / "run.json" / "curve.svg")


def test_ticks_are_round() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-30.0, 520.0) == pytest.approx([0, 100, 200, 300, 400, 500])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_within_the_range(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)
