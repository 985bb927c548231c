"""Verdicts on runs: intervals of differences by hand and from the literature, and what they make of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.study.outcome import MEAN_RETURN, SUCCESS, WIN_RATE, Change, Score, best_step, outcome, scores
from stratagem.training.statistics import success_interval


def score(successes: int, episodes: int, step: int = 0) -> Score:
    return Score(step, successes / episodes, *success_interval(successes, episodes), episodes)


def row(step: int, mode: str, value: float | None, low: float = 0.0, high: float = 1.0) -> dict[str, Any]:
    interval = [low, high]
    return {"step": step, "mode": mode, "episodes": 50, "success": value, "interval": interval, "mean_return": value}


def test_difference_of_two_shares_is_newcombes_published_example() -> None:
    """56 of 70 against 48 of 80 (Newcombe 1998, Statistics in Medicine 17, table II, method 10)."""
    low, high = Change("sampled", SUCCESS, score(48, 80), score(56, 70)).difference
    assert low == pytest.approx(0.0524, abs=1e-4)
    assert high == pytest.approx(0.3339, abs=1e-4)


def test_difference_of_two_means_adds_their_half_widths_in_square() -> None:
    change = Change("greedy", MEAN_RETURN, Score(0, 10.0, 7.0, 13.0, 20), Score(9, 30.0, 26.0, 34.0, 20))
    assert change.difference == pytest.approx((15.0, 25.0))


@given(st.integers(0, 60), st.integers(0, 60))
def test_exchanging_before_and_after_turns_the_difference_round(first: int, second: int) -> None:
    forth = Change("sampled", SUCCESS, score(first, 60), score(second, 60)).difference
    back = Change("sampled", SUCCESS, score(second, 60), score(first, 60)).difference
    assert back == pytest.approx((-forth[1], -forth[0]))
    assert forth[0] <= (second - first) / 60 <= forth[1]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (45, 97, "sampled success rose from 45 % [36, 55] to 97 % [92, 99]"),
        (97, 45, "sampled success fell from 97 % [92, 99] to 45 % [36, 55]"),
        (45, 47, "sampled success did not measurably change: 45 % [36, 55] before, 47 % [38, 57] after"),
    ],
)
def test_says_in_words_what_happened(before: int, after: int, said: str) -> None:
    assert Change("sampled", SUCCESS, score(before, 100), score(after, 100, 5)).sentence == said


def test_one_episode_is_too_few_to_judge() -> None:
    nan = math.nan
    change = Change("greedy", MEAN_RETURN, Score(0, 1.0, nan, nan, 1), Score(3, 9.0, nan, nan, 1))
    assert change.direction == "unknown"
    assert "from too few episodes" in change.sentence


@pytest.mark.parametrize(
    ("sampled", "greedy", "headline"),
    [
        ("rose", "rose", "learned"),
        ("rose", "unchanged", "learned"),
        ("rose", "fell", "mixed"),
        ("unchanged", "fell", "got worse"),
        ("unchanged", "unchanged", "did not rise"),
    ],
)
def test_headline_sums_up_both_modes(sampled: str, greedy: str, headline: str) -> None:
    after = {"rose": (0.9, 0.85, 0.95), "fell": (0.1, 0.05, 0.15), "unchanged": (0.5, 0.45, 0.55)}
    before = [row(0, mode, 0.5, 0.45, 0.55) for mode in ("sampled", "greedy")]
    assert outcome([*before, row(8, "sampled", *after[sampled]), row(8, "greedy", *after[greedy])]).headline == headline


def test_one_evaluation_gives_no_verdict_but_its_score() -> None:
    verdict = outcome([row(0, "sampled", 0.5, 0.4, 0.6)])
    assert verdict.headline == "no verdict"
    assert verdict.reasons == "evaluated only once; sampled success was 50 % [40, 60] at step 0"


def test_without_success_the_mean_return_is_judged() -> None:
    rows = [row(0, "sampled", None) | {"mean_return": 20.0, "interval": [15.0, 25.0]}]
    rows += [row(5, "sampled", None) | {"mean_return": 1234.5, "interval": [1200.0, 1260.0]}]
    assert outcome(rows).reasons == "sampled mean return rose from 20 [15, 25] to 1,234 [1,200, 1,260]"


def test_an_evaluation_whose_episodes_all_failed_is_no_score() -> None:
    rows = [row(0, "sampled", None) | {"mean_return": math.nan}, row(2, "sampled", 0.5)]
    assert [found.step for found in scores(rows, "sampled", SUCCESS)] == [2]


def test_best_step_is_the_earliest_with_the_highest_sum_of_modes() -> None:
    rows = [row(step, "sampled", s) for step, s in ((0, 0.2), (5, 0.75), (10, 0.5))]
    rows += [row(step, "greedy", g) for step, g in ((0, 0.2), (5, 0.5), (10, 0.75))]
    assert best_step(rows) == 5
    assert best_step([]) is None


def test_where_answers_are_compared_the_win_rate_is_what_counts() -> None:
    rows = [
        {**row(step, mode, None), "mean_return": 0.9 - won, "win_rate": won, "interval": [won, won]}
        for step, won in ((0, 0.5), (4, 0.8), (9, 0.6)) for mode in ("sampled", "greedy")
    ]  # fmt: skip
    found = outcome(rows)
    assert found.measure == WIN_RATE and found.headline == "learned" and best_step(rows) == 4
    assert found.reasons.startswith("sampled win rate against the start rose from 50 % [50, 50] to 60 % [60, 60]")
