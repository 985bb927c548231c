"""Statistics of scores by hand-worked numbers and invariants, and curves of a few points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from stratagem.estimate import Estimate
from stratagem.study.statistics import (
    average,
    first_reach,
    interquartile_band,
    interquartile_mean,
    paired_p,
    probability_of_improvement,
    until,
    verdict,
)

# Multiples of 1/64 are exact in binary, so that sums and ties are exact too.
scores = arrays.arrays(
    float,
    st.tuples(st.integers(1, 3), st.integers(2, 7)),
    elements=st.integers(-128, 128).map(lambda whole: whole / 64),
)
fast = settings(max_examples=30, deadline=None)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- interquartile mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "mean"),
    [
        ([[0.0, 1.0, 2.0, 3.0, 10.0]], 2.0),  # the middle three of five
        ([[0.0, 1.0, 8.0]], 3.0),  # a quarter of three is no score
        ([[0.25, 0.75]], 0.5),
        ([[0.0, 1.0], [2.0, 100.0]], 1.5),  # strata together: the middle two of four
    ],
)
def test_the_lowest_and_highest_quarter_do_not_count(rows: list[list[float]], mean: float) -> None:
    assert interquartile_mean(np.array(rows), rng()).value == mean


def test_seeds_are_resampled_within_their_stratum() -> None:
    """Strata without spread have no interval, far apart as they are."""
    apart = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert interquartile_mean(apart, rng()) == Estimate(0.5, 0.5, 0.5)


def test_the_interval_of_two_seeds_reaches_from_one_to_the_other() -> None:
    """A quarter of the resamples holds the lower one twice, and a quarter the higher."""
    assert interquartile_mean(np.array([[1.0, 3.0]]), rng()) == Estimate(2.0, 1.0, 3.0)


@fast
@given(scores, st.integers(-64, 64))
def test_a_constant_moves_mean_and_interval_alike(values: np.ndarray, constant: int) -> None:
    here, there = (interquartile_mean(values + c, rng(), 200) for c in (0, constant))
    moved = [here.value + constant, here.low + constant, here.high + constant]
    assert [there.value, there.low, there.high] == pytest.approx(moved, abs=1e-9)


@fast
@given(scores)
def test_the_order_of_seeds_does_not_change_a_value(values: np.ndarray) -> None:
    turned = values[:, ::-1]
    assert interquartile_mean(turned, rng(), 50).value == pytest.approx(interquartile_mean(values, rng(), 50).value)
    by_chance = [probability_of_improvement(x, values[:, :1] + 0 * x, rng(), 50).value for x in (values, turned)]
    assert by_chance[0] == pytest.approx(by_chance[1])
    assert paired_p(turned) == pytest.approx(paired_p(values))


def test_a_band_is_the_interquartile_mean_of_each_point_with_whole_curves_resampled() -> None:
    curves = rng(3).normal(size=(4, 5))
    value, low, high = interquartile_band(curves, rng(7))
    for point in range(4):
        alone = interquartile_mean(curves[None, point], rng(7))
        assert (value[point], low[point], high[point]) == pytest.approx((alone.value, alone.low, alone.high))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = rng(1).normal(size=(2, 5))
    assert interquartile_mean(values, rng(4)) == interquartile_mean(values, rng(4))


# ---- probability of improvement -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "reference", "probability"),
    [
        ([[1.0, 3.0]], [[2.0, 0.0]], 0.75),  # 1 beats 0, 3 beats both
        ([[1.0, 2.0]], [[1.0, 2.0]], 0.5),
        ([[1.0, 2.0]], [[1.0, 0.0]], 0.875),  # one tie of four
        ([[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], 0.75),  # always on one task, all ties on the other
    ],
)
def test_every_run_meets_every_run_of_the_reference(
    arm: list[list[float]], reference: list[list[float]], probability: float
) -> None:
    assert probability_of_improvement(np.array(arm), np.array(reference), rng()).value == probability


def test_an_arm_that_always_wins_is_certain() -> None:
    arm = np.array([[0.7, 0.8, 0.9]])
    assert probability_of_improvement(arm, arm - 0.5, rng()) == Estimate(1.0, 1.0, 1.0)


@fast
@given(scores, st.data())
def test_one_arm_improves_as_often_as_the_other_does_not(values: np.ndarray, data: st.DataObject) -> None:
    other = data.draw(arrays.arrays(float, values.shape, elements=st.integers(-128, 128).map(lambda whole: whole / 64)))
    forth, back = (probability_of_improvement(x, y, rng(), 50).value for x, y in ((values, other), (other, values)))
    assert 0 <= forth <= 1 and forth + back == pytest.approx(1)


# ---- the test and the verdict ---------------------------------------------------------------------------------------


def test_students_p_in_closed_form() -> None:
    # One degree of freedom, t = 2: 1 - 2/pi atan 2.  Two, t = 2 sqrt 3: 1 - t / sqrt(t^2 + 2).
    assert paired_p(np.array([[1.0, 3.0]])) == pytest.approx(1 - 2 / math.pi * math.atan(2))
    assert paired_p(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(1 - math.sqrt(12 / 14))


def test_differences_are_averaged_over_tasks_first() -> None:
    assert paired_p(np.array([[0.0, 5.0, 2.0], [2.0, -1.0, 4.0]])) == paired_p(np.array([[1.0, 2.0, 3.0]]))


def test_runs_that_are_the_same_do_not_differ() -> None:
    assert paired_p(np.zeros((2, 5))) == 1.0
    assert paired_p(np.zeros((1, 5)), resolution=0.01) == 1.0


def test_runs_that_differ_without_any_spread_differ_for_certain() -> None:
    assert paired_p(np.full((1, 5), 0.25)) == 0.0


def test_equal_differences_are_no_certainty_where_scores_come_in_steps() -> None:
    # s = 1/4 / sqrt 6, so t = sqrt 6 sqrt 2 = sqrt 12 with one degree of freedom; two tasks halve the variance.
    two = paired_p(np.full((1, 2), 0.25), resolution=0.25)
    assert two == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(12)))
    both = paired_p(np.full((2, 2), 0.25), resolution=0.25)
    assert both == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(24)))
    # But all against nothing, with five seeds of a hundred episodes, remains clear.
    assert paired_p(np.ones((1, 5)), resolution=0.01) < 1e-6


@fast
@given(scores, st.floats(0, 0.25))
def test_the_step_of_scores_never_makes_a_difference_clearer(values: np.ndarray, resolution: float) -> None:
    assert paired_p(values, resolution) >= paired_p(values)


def test_it_is_scipys_test_where_there_is_spread() -> None:
    values = rng(5).normal(0.3, 1.0, (3, 6))
    expected = stats.ttest_1samp(values.mean(axis=0), 0.0).pvalue
    assert paired_p(values, resolution=0.1) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("p", "interval", "said"),
    [
        (0.01, (0.1, 0.3), "better"),
        (0.01, (-0.3, -0.1), "worse"),
        (0.05, (0.1, 0.3), "no difference"),  # the interval alone is too narrow to be believed
        (0.01, (-0.1, 0.3), "no difference"),
        (0.01, (0.0, 0.3), "no difference"),
        (1.0, (0.0, 0.0), "no difference"),
    ],
)
def test_test_and_interval_must_agree(p: float, interval: tuple[float, float], said: str) -> None:
    assert verdict(p, Estimate(sum(interval) / 2, *interval)) == said


# ---- one curve ------------------------------------------------------------------------------------------------------


def test_a_curve_is_cut_where_the_budget_ends() -> None:
    x, y = until(np.array([0.0, 40.0, 120.0]), np.array([0.0, 0.4, 0.8]), 100.0)
    assert x.tolist() == [0.0, 40.0, 100.0]
    assert y.tolist() == pytest.approx([0.0, 0.4, 0.7])


def test_a_curve_is_level_before_its_first_point_and_after_its_last() -> None:
    x, y = until(np.array([20.0, 60.0]), np.array([0.2, 0.6]), 100.0)
    assert x.tolist() == [0.0, 20.0, 60.0, 100.0]
    assert y.tolist() == [0.2, 0.2, 0.6, 0.6]


def test_the_average_of_a_curve_weighs_points_by_their_distance() -> None:
    # A triangle of area 10 * 0.4 / 2, a trapezoid of area 30 * (0.4 + 0.8) / 2, over a width of 40.
    assert average(np.array([0.0, 10.0, 40.0]), np.array([0.0, 0.4, 0.8])) == pytest.approx(0.5)


def test_the_first_reach_lies_between_points() -> None:
    x, y = np.array([0.0, 10.0, 30.0, 50.0]), np.array([0.2, 0.4, 0.8, 0.1])
    assert first_reach(x, y, 0.5) == pytest.approx(15.0)
    assert first_reach(x, y, 0.4) == 10.0
    assert first_reach(x, y, 0.1) == 0.0
    assert first_reach(x, y, 0.9) == math.inf


def test_a_score_that_misses_the_level_by_a_rounding_error_reaches_it() -> None:
    mean = (0.4 + 0.4 + 0.4) / 3
    assert mean > 0.4
    assert first_reach(np.array([0.0, 10.0]), np.array([0.0, 0.4]), mean) == 10.0
