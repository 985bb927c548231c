"""The figure of populations by learned responses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("mkdocs")

import learned_psro_figure
from learned_psro_figure import GAP, HEIGHT, LEFT, TOP, WIDTH

from stratagem.errors import InputError
from stratagem.study.curve import COLORS


def recorded(folder: Path, **changes) -> Path:
    curves = [
        {"oracle": "exact", "exploitability": [[2.0, 1.0]], "share": [[1.0, 1.0]]},
        {"oracle": "learned", "exploitability": [[4.0, 2.0], [2.0, 0.0]], "share": [[0.5, 0.0], [1.0, 1.0]]},
    ]
    plain = {
        "game": "kuhn_poker", "meta": "prd", "iterations": 2, "steps": 60, "start": 4.0, "curves": curves,
        "seeds": [0, 1], "command": ["python", "-m", "benchmarks.learned_psro"],
    }  # fmt: skip
    path = folder / "learned_psro.json"
    path.write_text(json.dumps(plain | changes))
    return path


def test_every_run_is_a_line_in_both_panels(tmp_path):
    figure = ElementTree.fromstring(learned_psro_figure.learned_psro_figure(recorded(tmp_path)))
    lines = [(mark.get("stroke"), mark.get("points")) for mark in figure.iter("polyline")]
    assert [color for color, _ in lines] == [COLORS[0], COLORS[1], COLORS[1]] * 2
    middle, right, bottom = LEFT + WIDTH / 2, LEFT + WIDTH, TOP + HEIGHT
    # From before the first iteration on.
    assert lines[2][1] == f"{LEFT:.1f},{TOP:.1f} {middle:.1f},{TOP + HEIGHT / 2:.1f} {right:.1f},{bottom:.1f}"
    second = WIDTH + GAP
    assert lines[4][1] == f"{middle + second:.1f},{TOP + HEIGHT / 2:.1f} {right + second:.1f},{bottom:.1f}"


def test_what_it_shows_is_said_to_those_who_do_not_see_it(tmp_path):
    figure = ElementTree.fromstring(learned_psro_figure.learned_psro_figure(recorded(tmp_path)))
    said = figure.find("svg").get("aria-label")
    assert said.endswith("learned responses: exploitability 2.00, 0.00 after 2 iterations")
    assert "2 seeds" in "".join(figure.find("figcaption").itertext())


def test_a_broken_file_is_named(tmp_path):
    for path in (tmp_path / "learned_psro.json", recorded(tmp_path, curves=[{"oracle": "exact"}])):
        with pytest.raises(InputError, match=r"learned_psro\.json: is no recorded run of benchmarks\.learned_psro"):
            learned_psro_figure.learned_psro_figure(path)


def test_what_is_on_record_can_be_drawn():
    figure = learned_psro_figure.learned_psro_figure(Path(__file__).parents[2] / "results" / "learned_psro.json")
    assert {"exact responses", "learned responses"} <= {
        mark.text for mark in ElementTree.fromstring(figure).iter("text")
    }
