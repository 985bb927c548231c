"""Populations: the distribution of incomes, its quantiles, and units."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stratagem.economy import FULL_TIME, GB2, WEEKS, uniform_skills, us_income_skills
from stratagem.errors import InputError


def test_the_median_of_a_million_draws_is_the_quantile_of_a_half():
    drawn = GB2().sample(1_000_000, np.random.default_rng(3))
    for p in (0.1, 0.5, 0.9):
        assert np.quantile(drawn, p) == pytest.approx(float(GB2().quantile(p)), rel=0.01)


def test_the_quantile_is_that_of_a_scaled_power_of_fishers_f():
    p = np.linspace(0.01, 0.99, 25)
    f = stats.f.ppf(p, 2 * 0.48651871959386955, 2 * 1.1410398548220329)
    expected = 72402.78177917618 * (0.48651871959386955 / 1.1410398548220329 * f) ** (1 / 2.0721070746154746)
    np.testing.assert_allclose(GB2().quantile(p), expected, rtol=1e-9)


def test_with_equal_shapes_the_median_is_the_scale():
    assert float(GB2(1000.0, 3.0, 0.7, 0.7).quantile(0.5)) == pytest.approx(1000)


def test_full_time_work_earns_the_income_that_was_drawn():
    income = us_income_skills(20_000, seed=1) * FULL_TIME
    assert np.median(income) == pytest.approx(float(GB2().quantile(0.5)), rel=0.05)


def test_uniform_skills_are_in_their_range_and_seeds_decide():
    skills = uniform_skills(1000, seed=5)
    assert 1.24 <= skills.min() < 5 and 155 < skills.max() <= 159.1
    np.testing.assert_array_equal(skills, uniform_skills(1000, seed=5))
    assert not np.array_equal(us_income_skills(9, seed=5), us_income_skills(9, seed=6))
    # As dollars per hour they are 52 times as much a year for one weekly hour.
    assert (uniform_skills(1, seed=5) * WEEKS * FULL_TIME)[0] == pytest.approx(2080 * skills[0])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: GB2(mu=0), r"GB2\.mu = 0: must be positive"),
        (lambda: GB2(tau=-1.0), r"GB2\.tau = -1\.0: must be positive"),
        (lambda: GB2().quantile(1.0), "p must be strictly between 0 and 1"),
        (lambda: us_income_skills(0, 1), "workers = 0: must be at least 1"),
        (lambda: uniform_skills(3, 1, 5, 4), "low = 5, high = 4"),
    ],
)
def test_bad_input_is_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask()
