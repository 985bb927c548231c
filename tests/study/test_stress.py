"""Stress: what is asked, what counts as surviving, and a folder that goes on where it stopped."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.study.stress import Condition, Endured, Plan, Stress, endure, read_stress, stress
from stratagem.study.stress_report import cells, ratio_text, sentences, write_stress_report

SMALL = Plan(("graded",), (Condition(), Condition(2), Condition(mismatch=0.5)), (1000, 1001), batches=3, updates=2)


def endured(*scores: float, ratio: float = 2.0) -> Endured:
    return Endured(scores, scores, (ratio,) * len(scores))


def by_hand(**arms: list[Endured]) -> Stress:
    plan = Plan(("graded",), (Condition(), Condition(8)), (0, 1, 2), 1, 1)
    return Stress(plan, dict.fromkeys(arms, ""), {arm: tuple(rows) for arm, rows in arms.items()})


def test_a_condition_is_named_after_what_differs():
    assert Condition().name == "staleness 0"
    assert Condition(8).name == "staleness 8"
    assert Condition(mismatch=0.5).name == "mismatch 0.5"
    assert Condition(2, 0.5).name == "staleness 2, mismatch 0.5"


def test_to_survive_is_to_keep_four_fifths_of_the_score_by_the_interval_of_the_pairs():
    found = by_hand(
        steady=[endured(1.0, 0.9, 0.8), endured(0.95, 0.85, 0.75)],
        broken=[endured(1.0, 0.9, 0.8), endured(0.3, 0.2, 0.1)],
        wavering=[endured(1.0, 0.9, 0.8), endured(1.0, 0.1, 0.8)],
    )
    assert [found.fate(arm, 1) for arm in found.endured] == ["survives", "breaks", "unclear"]
    assert list(sentences(found)) == ["staleness 8: 1 of 3 survive; broken: broken; unclear: wavering"]
    assert [cell.fate for cell in cells(found, "broken")] == [None, "breaks"]
    assert cells(found, "steady")[1].success == "0.85"


@pytest.mark.parametrize(
    ("ratio", "shown"), [(2.04, "2"), (9.94, "9.9"), (10.4, "10"), (151.6, "152"), (31_000.0, "3.1e+04")]
)
def test_ratios_are_shown_to_about_two_digits_and_large_ones_by_their_power(ratio, shown):
    assert ratio_text(endured(0.5, ratio=ratio)) == shown


def test_the_interval_of_a_success_stays_between_none_and_all():
    found = by_hand(one=[endured(1.0, 0.0, 1.0)])
    assert (found.success("one", 0).low, found.success("one", 0).high) == (0.0, 1.0)


def test_ratios_that_are_no_number_are_written_and_read_back(tmp_path):
    found = by_hand(wild=[endured(0.5, 0.5, 0.5), endured(0.5, 0.6, 0.7, ratio=math.inf)])
    (tmp_path / "results.json").write_text(found.to_json())
    assert "Infinity" not in found.to_json()
    assert read_stress(tmp_path) == found
    assert ratio_text(found.endured["wild"][1]) == "not finite"
    assert ratio_text(found.endured["wild"][0]) == "2"


def test_runs_of_one_seed_are_pairs_and_ratios_grow_with_staleness():
    first = endure(recipes.grpo(), SMALL)
    assert first == endure(recipes.grpo(), SMALL)
    fresh, stale, mismatched = first
    assert len(fresh.scores) == 2
    assert stale.largest_ratio > fresh.largest_ratio > 1
    assert mismatched.largest_ratio > 1


def test_a_stress_goes_on_where_it_stopped_and_refuses_another_question(tmp_path: Path):
    seen: list[str] = []

    def ask(*names: str, plan: Plan = SMALL) -> Stress:
        return stress(names, plan, out=tmp_path, jobs=2, progress=lambda done, total, arm: seen.append(arm))

    ask("grpo")
    assert seen == ["grpo"]
    both = ask("grpo", "rloo")
    assert seen == ["grpo", "rloo"]
    assert list(both.endured) == ["grpo", "rloo"]
    assert both.endured["grpo"] == endure(recipes.grpo(), SMALL)
    assert read_stress(tmp_path) == both
    page = write_stress_report(both, tmp_path / "report.html").read_text()
    assert re.search(r"staleness 2: \d of 2 survive", page)
    with pytest.raises(InputError, match="holds the answer to another question"):
        ask("grpo", plan=dataclasses.replace(SMALL, batches=4))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seeds": (0,)}, "needs two or more different seeds"),
        ({"seeds": (1, 1)}, "needs two or more different seeds"),
        ({"batches": 0}, "batches and updates must be at least 1"),
        ({"conditions": (Condition(-1),)}, "must be at least 0"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, expected):
    with pytest.raises(InputError, match=expected):
        dataclasses.replace(SMALL, **change)
