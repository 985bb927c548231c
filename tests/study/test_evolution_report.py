"""The page of generations of populations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from stratagem.openended.evolving import Evolved
from stratagem.openended.percentiles import ScoreBook
from stratagem.study.evolution_report import write_evolution_report


def _evolved(*, copies: bool = True) -> Evolved:
    book = ScoreBook(4)
    book.enter("generation-1", np.array([0.0, 1.0, 2.0, 0.0]))
    book.enter("random", np.array([0.0, 0.0, 1.0, 0.0]))
    book.enter("generation-2", np.array([0.0, 2.0, 4.0, 1.0]))
    history = tuple(
        {
            "generation": generation,
            "round": number,
            "copies": [[1, 0]] if copies and number == 2 else [],
            "best": 0,
            "score": [0.5 * generation, 0.25],
            "knobs": [{"zeta": 1.0, "alpha": 0.1}, {"zeta": 0.8**number, "alpha": 0.1}],
        }
        for generation in (1, 2)
        for number in (1, 2)
    )
    # Only what the page shows is needed of it.
    return Evolved(book, (1000, 2500), (math.nan, 0.04), history, None, Path())  # type: ignore[arg-type]


def _charts(page: str) -> dict:
    return json.loads(page.partition('id="curves">')[2].partition("</script>")[0])


def test_the_page_holds_curves_copies_and_knobs_in_the_order_of_their_headings(tmp_path):
    found = _evolved()
    path = write_evolution_report(found, tmp_path / "page.html", recipe="<xland>", task="openended:grid", seed=0)
    page = path.read_text()
    charts = _charts(page)
    assert [curve["agent"] for curve in charts["curves"]] == ["generation-1", "generation-2", "random"]
    assert charts["curves"][1]["curve"] == found.book.curve("generation-2").tolist()
    assert charts["copies"] == [[], [[1, 0]], [], [[1, 0]]] and charts["begins"] == [3]
    assert page.index("<figcaption>zeta") < page.index("<figcaption>alpha")
    assert charts["knobs"][0] == [[1.0, 0.8], [1.0, 0.8**2]] * 2 and charts["knobs"][1][0] == [0.1, 0.1]
    assert "<dt>generation 2, round 2</dt><dd>member 1 from member 0</dd>" in page
    assert "<h1>&lt;xland&gt; evolved on openended:grid</h1>" in page and "3 of 4 tasks count" in page


def test_the_table_holds_percentiles_participation_and_what_it_took(tmp_path):
    page = write_evolution_report(_evolved(), tmp_path / "p.html", recipe="xland", task="t", seed=0).read_text()
    row = page.partition('<th scope="row">generation-1</th>')[2].partition("</tr>")[0]
    # Scores 1/2, 2/4 and 0 of the best on the three tasks on which somebody earned something.
    assert row == "<td>0.000</td><td>0.000</td><td>0.500</td><td>0.667</td><td>0.333</td><td>1,000</td><td>—</td>"
    row = page.partition('<th scope="row">generation-2</th>')[2].partition("</tr>")[0]
    assert row.endswith("<td>2,500</td><td>0.040</td>")


def test_where_nobody_copied_the_page_says_so(tmp_path):
    found = _evolved(copies=False)
    page = write_evolution_report(found, tmp_path / "page.html", recipe="ppo", task="t", seed=0).read_text()
    assert "Nobody copied" in page
