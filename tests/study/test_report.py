"""The report page: it says what happened, shows the data, escapes everything and asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.study.page import ending
from stratagem.study.report import write_report
from stratagem.training.run_directory import RunDirectory

MakeRun = Callable[..., RunDirectory]


class Page(HTMLParser):
    """What a browser finds in a page: elements, text outside scripts, and the data of the curves."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._curves = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if attributes.get("id") == "curves":
            self._curves += data
        elif tag not in ("script", "style"):
            self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    def curves(self, section: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._curves)[section]
        return found


def page_of(runs: list[RunDirectory], tmp_path: Path, title: str = "A run") -> Page:
    return Page(write_report(runs, tmp_path / "out" / "report.html", title).read_text(encoding="utf-8"))


def test_says_plainly_what_rose_and_what_did_not(learned: RunDirectory, tmp_path: Path) -> None:
    text = page_of([learned], tmp_path).text
    assert "Learned: sampled success rose from 45 % [36, 55] to 97 % [92, 99];" in text
    assert "greedy success did not measurably change: 60 % [50, 69] before, 62 % [52, 71] after." in text


def test_asks_the_network_for_nothing(learned: RunDirectory, tmp_path: Path) -> None:
    """Nothing is loaded by an attribute, the page forbids every other request, and plotly is inside, once."""
    page = page_of([learned], tmp_path)
    loading = [(tag, a) for tag, a in page.elements if {"src", "srcset", "data", "poster"} & a.keys() or tag == "link"]
    assert loading == []
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")]
    assert policies == [
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
    ]
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8").count("* plotly.js v") == 1


def test_fits_a_phone_and_both_colour_schemes(learned: RunDirectory, tmp_path: Path) -> None:
    page = page_of([learned], tmp_path)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.elements
    assert "prefers-color-scheme: dark" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_curves_hold_the_numbers_on_every_axis(learned: RunDirectory, tmp_path: Path) -> None:
    page = page_of([learned], tmp_path)
    (chart,) = page.curves("held_out")
    sampled, greedy = chart["traces"]
    assert sampled["y"] == [0.45, 0.97]
    assert sampled["x"] == {"steps": [0, 2], "tokens": [0, 60], "minutes": [0, 3]}
    assert greedy["low"][0] < 0.6 < greedy["high"][0]
    assert [chart["title"] for chart in page.curves("training")] == ["success per batch", "reward per batch"]
    assert page.curves("diagnostics")[0]["traces"][0]["y"] == [1.0, 0.5]


def test_shows_episodes_before_and_after_as_conversations(learned: RunDirectory, tmp_path: Path) -> None:
    page = page_of([learned], tmp_path)
    assert "sampled, held-out episode 7: no success, reward 0, cut by a limit → success, reward 1" in page.text
    assert "environment A door. policy reward 1 go east" in page.text
    assert "training batch 1: success, reward 1" in page.text


def test_an_episode_kept_only_once_says_when(learned: RunDirectory, tmp_path: Path) -> None:
    rows = learned.rows("evaluations.jsonl")
    rows[2]["samples"] = [{**rows[2]["samples"][0], "episode": 8}]
    learned.write_text("evaluations.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    text = page_of([learned], tmp_path).text
    assert "sampled, held-out episode 7: no success, reward 0, cut by a limit (before)" in text
    assert "sampled, held-out episode 8: success, reward 1 (after)" in text


def test_shows_the_recipe_as_its_difference_from_its_base(learned: RunDirectory, tmp_path: Path) -> None:
    text = page_of([learned], tmp_path).text
    assert "field grpo this run" in text
    assert "advantage group_standardized group_centered" in text
    assert "Understanding R1-Zero-Like Training" in text


def test_the_command_can_be_copied_into_a_shell(learned: RunDirectory, tmp_path: Path) -> None:
    assert "stratagem train dr_grpo --set 'sampler.group_size=<4>'" in page_of([learned], tmp_path).text


def test_everything_is_escaped(learned: RunDirectory, make_run: MakeRun, tmp_path: Path) -> None:
    """Markup in a title, a label, an episode or the data of the curves stays text."""
    evil = "<img src=x><script>alert(1)</script>"
    other = make_run("<script><b>", metrics=learned.rows("metrics.jsonl"))
    page = page_of([learned, other], tmp_path, title=evil)
    assert evil in page.text
    assert "wait <b>here</b>" in page.text
    assert not {"img", "b"} & {tag for tag, _ in page.elements}
    assert page.curves("training")[0]["traces"][1]["name"] == "<script><b>"


def test_several_runs_share_the_charts_and_keep_their_verdicts(
    learned: RunDirectory, make_run: MakeRun, tmp_path: Path
) -> None:
    other = make_run("other", recipe="rloo", evaluations=learned.rows("evaluations.jsonl")[:2])
    page = page_of([learned, other], tmp_path)
    names = [trace["name"] for trace in page.curves("held_out")[0]["traces"]]
    assert names == ["dr_grpo, sampled", "dr_grpo, greedy", "rloo, sampled", "rloo, greedy"]
    assert "No verdict: evaluated only once; sampled success was 45 % [36, 55] at step 0" in page.text


def test_an_unfinished_run_says_how_far_it_came(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(steps=20, metrics=[{"step": 7, "reward": 0.5}])
    assert "Only 7 of 20 steps are written" in page_of([run], tmp_path).text


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    text = page_of([RunDirectory.create(tmp_path / "empty")], tmp_path).text
    assert "No verdict: no held-out evaluation was written." in text
    assert "run.json: missing or not valid JSON" in text
    assert "recipe.yaml: missing or broken" in text
    assert "No held-out episode was kept." in text


def test_a_better_policy_on_the_way_and_lost_episodes_are_told(learned: RunDirectory, tmp_path: Path) -> None:
    """A fall after step 2: model/ holds step 2, not the last."""
    last = [row | {"step": 4, "success": 0.1, "failed": 3} for row in learned.rows("evaluations.jsonl")[2:]]
    for row in last:
        learned.append("evaluations.jsonl", row)
    text = page_of([learned], tmp_path).text
    assert "model/ holds that of step 2, sampled 97 % [92, 99], greedy 62 % [52, 71]." in text
    assert "Held-out episodes that failed: 6." in text


def test_a_control_run_shows_returns_and_its_own_episodes(make_run: MakeRun, tmp_path: Path) -> None:
    sample = {"episode": 0, "seed": 9, "return": 21.0, "turns": 21, "left": "terminal", "last_observation": [0.5]}
    rows = [
        {"step": step, "mode": "greedy", "episodes": 20, "success": None, "interval": [value - 5, value + 5],
         "mean_return": value, "std_return": 3.0, "mean_length": value, "failed": 0, "samples": [sample]}
        for step, value in ((0, 21.0), (2, 480.0))
    ]  # fmt: skip
    page = page_of([make_run(recipe="ppo", evaluations=rows)], tmp_path)
    assert "greedy mean return rose from 21 [16, 26] to 480 [475, 485]" in page.text
    assert "greedy, held-out episode 0: return 21 → return 21" in page.text
    assert "last observation [0.5]" in page.text
    assert page.curves("held_out")[0]["title"] == "held-out mean return"


def test_an_episode_that_failed_says_why() -> None:
    assert ending({"reward": 0.0, "success": False, "failure": "TimeoutError: 30 s"}) == "failed (TimeoutError: 30 s)"


def test_no_runs_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one run"):
        write_report([], tmp_path / "report.html", "nothing")
