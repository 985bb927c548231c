"""Intervals by textbook numbers, and evaluations of nothing."""

from __future__ import annotations

import math

import pytest

from stratagem.training.statistics import evaluation, mean_interval, success_interval


def test_wilsons_interval():
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 1/2, n = 10, z = 1.95996.
    assert success_interval(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert success_interval(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert success_interval(0, 0) == (0.0, 1.0)


def test_students_interval():
    # Mean 2, sample deviation 1, n = 3: 2 -+ 4.30265 / sqrt(3).
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert all(math.isnan(bound) for bound in mean_interval([1.0]))


def test_failed_episodes_are_counted_apart():
    said = evaluation("greedy", [1.0, 0.0], [3, 5], [True, False], failed=2)
    assert (said.mode, said.episodes, said.failed) == ("greedy", 2, 2)
    assert (said.success, said.mean_return, said.std_return, said.mean_length) == (0.5, 0.5, 0.5, 4.0)
    assert said.interval == success_interval(1, 2)


def test_an_evaluation_of_failures_alone_knows_nothing():
    said = evaluation("sampled", [], [], [], failed=3)
    assert (said.episodes, said.success, said.failed) == (0, None, 3)
    assert said.interval == (0.0, 1.0) and math.isnan(said.mean_return)


def test_a_task_without_success_has_the_interval_of_its_return():
    said = evaluation("sampled", [1.0, 2.0, 3.0], [1, 1, 1], None)
    assert said.success is None and said.interval == mean_interval([1.0, 2.0, 3.0])
