"""The figure of self-play in a circle."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("mkdocs")

import circle_figure
from circle_figure import HEIGHT, LEFT, MOST, TOP, WIDTH
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError

from stratagem.errors import InputError

HOOK = Path(__file__).parents[2] / "docs" / "hooks" / "generate.py"


def recorded(folder: Path, **changes) -> Path:
    curve = {
        "technique": "sppo", "title": "SPPO <last>", "way": "table", "iteration": [0, 5, 10],
        "last": [[0.2, 0.4], [0.1, 0.3], [0.0, 0.2]], "average": [[0.2, 0.4], [0.1, 0.1], [0.1, 0.1]],
    }  # fmt: skip
    plain = {
        "game": "lab:circle", "strength": 0.05, "step": 1 / 3, "best_score": 0.3, "seeds": [0, 1],
        "curves": [curve, {**curve, "way": "recipe"}], "command": ["python", "-m", "benchmarks.circle"],
    }  # fmt: skip
    path = folder / "circle.json"
    path.write_text(json.dumps(plain | changes))
    return path


def test_a_line_is_the_mean_over_seeds_and_the_band_reaches_from_the_least_to_the_largest(tmp_path):
    figure = ElementTree.fromstring(circle_figure.circle_figure(recorded(tmp_path)))
    lines = [mark for mark in figure.iter("polyline") if mark.get("class") == "last"]
    assert len(lines) == 2

    def place(iteration: float, gap: float) -> str:
        return f"{LEFT + WIDTH * iteration / 10:.1f},{TOP + HEIGHT * (1 - gap / MOST):.1f}"

    assert lines[0].get("points") == " ".join([place(0, 0.3), place(5, 0.2), place(10, 0.1)])
    band = next(mark for mark in figure.iter("polygon") if mark.get("class") == "last band")
    corners = [(0, 0.4), (5, 0.3), (10, 0.2), (10, 0.0), (5, 0.1), (0, 0.2)]
    assert band.get("points") == " ".join(place(*corner) for corner in corners)


def test_what_it_shows_is_said_to_those_who_do_not_see_it(tmp_path):
    figure = ElementTree.fromstring(circle_figure.circle_figure(recorded(tmp_path)))
    said = figure.find("svg").get("aria-label")
    assert said.startswith(
        "SPPO <last>, exact, as a table: exploitability after 10 iterations 0.100, of the mean policy 0.100; "
    )
    caption = "".join(figure.find("figcaption").itertext())
    assert "2 random starts" in caption and "python -m benchmarks.circle" in caption


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"circle\.json: is no recorded run of benchmarks\.circle"):
        circle_figure.circle_figure(tmp_path / "circle.json")
    with pytest.raises(InputError, match=r"circle\.json"):
        circle_figure.circle_figure(recorded(tmp_path, curves=[{"title": "SPPO"}]))


def test_a_page_that_asks_for_it_gets_it(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "mkdocs.yml").write_text(f"site_name: Site\nplugins: []\nhooks:\n  - {HOOK}\n")
    config = load_config(str(tmp_path / "mkdocs.yml"))

    def page(markdown: str) -> str:
        return config.plugins.on_page_markdown(markdown, page=None, config=config, files=None)

    assert page("nothing") == "nothing"
    with pytest.raises(PluginError, match=r"circle\.json"):
        page(circle_figure.PLACE)
    recorded(tmp_path / "results")
    assert page(f"before\n\n{circle_figure.PLACE}\n").startswith('before\n\n<figure class="panels circle"><svg')


def test_what_is_on_record_can_be_drawn():
    figure = circle_figure.circle_figure(Path(__file__).parents[2] / "results" / "circle.json")
    assert {"SPPO", "INPO", "Nash-MD", "Nash-MP"} <= {mark.text for mark in ElementTree.fromstring(figure).iter("text")}
