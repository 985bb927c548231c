"""The figure of equilibrium solvers."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("mkdocs")

import equilibria_figure
from equilibria_figure import GAP, HEIGHT, LEAST, LEFT, ROW, TOP, WIDTH
from panels import Axis, Panel

from stratagem.errors import InputError
from stratagem.study.curve import COLORS


def recorded(folder: Path, **changes) -> Path:
    curve = {"solver": "CFR <1>", "kind": "cfr", "game": "Kuhn", "step": [1, 10, 100], "seconds": [0.0, 0.1, 1.0]}
    falling = {**curve, "exploitability": [1.0, 1e-6, 1e-12]}
    other = {**curve, "solver": "CFR+", "exploitability": [1.0, 1e-12, 0.0]}
    elsewhere = {**falling, "game": "Leduc"}
    population = {**falling, "kind": "population", "solver": "PSRO", "exploitability": [1.0, 0.1, 0.01]}
    plain = {
        "games": {"Kuhn": "spiel:kuhn_poker"}, "repeats": 3, "command": ["python", "-m", "benchmarks.equilibria"],
        "curves": [falling, other, elsewhere, population],
    }  # fmt: skip
    path = folder / "equilibria.json"
    path.write_text(json.dumps(plain | changes))
    return path


def test_values_lie_where_the_axes_say():
    panel = Panel(10, 20, 100, 50, Axis(0, 4), Axis(1e-4, 1, logarithmic=True))
    assert panel.points([(0, 1), (2, 1e-2), (4, 1e-4), (9, 7)]) == "10.0,20.0 60.0,45.0 110.0,70.0 110.0,20.0"


def test_a_solver_is_a_line_of_its_color_in_the_panel_of_each_game(tmp_path):
    figure = ElementTree.fromstring(equilibria_figure.equilibria_figure(recorded(tmp_path)))
    lines = [(mark.get("stroke"), mark.get("points")) for mark in figure.iter("polyline")]
    bottom, half, right = TOP + HEIGHT, TOP + HEIGHT / 2, LEFT + WIDTH
    assert lines[0] == (
        COLORS[0],
        f"{LEFT:.1f},{TOP:.1f} {LEFT + WIDTH / 2:.1f},{half:.1f} {right:.1f},{bottom:.1f}",
    )
    assert lines[1][0] == COLORS[1] and lines[1][1].endswith(f"{right:.1f},{bottom:.1f}")
    assert lines[2][1].startswith(f"{LEFT + WIDTH + GAP:.1f},{TOP:.1f} ")
    # By seconds the point at none is left out.
    assert len(lines) == 7 and lines[3][1].startswith(f"{LEFT:.1f},{TOP + ROW + HEIGHT / 2:.1f} ")
    assert lines[6][1].endswith(f"{right:.1f},{TOP + 2 * ROW + HEIGHT * 2 / 3:.1f}") and LEAST == 1e-12


def test_what_it_shows_is_said_to_those_who_do_not_see_it(tmp_path):
    figure = ElementTree.fromstring(equilibria_figure.equilibria_figure(recorded(tmp_path)))
    said = figure.find("svg").get("aria-label")
    assert said.startswith("Kuhn, CFR <1>: 1e-12 after 100 iterations, 1 s; Kuhn, CFR+: 0 after 100 iterations")
    caption = "".join(figure.find("figcaption").itertext())
    assert "spiel:kuhn_poker" in caption and "python -m benchmarks.equilibria" in caption


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"equilibria\.json: is no recorded run of benchmarks\.equilibria"):
        equilibria_figure.equilibria_figure(tmp_path / "equilibria.json")
    with pytest.raises(InputError, match=r"equilibria\.json"):
        equilibria_figure.equilibria_figure(recorded(tmp_path, curves=[{"solver": "CFR"}]))


def test_what_is_on_record_can_be_drawn():
    figure = equilibria_figure.equilibria_figure(Path(__file__).parents[2] / "results" / "equilibria.json")
    assert {"VAD-CFR", "DPCFR+", "PSRO, Nash"} <= {mark.text for mark in ElementTree.fromstring(figure).iter("text")}
