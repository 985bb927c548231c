"""The economy: numbers worked by hand, best responses against brute force, the optimum, and two time scales."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.catalogue import card
from stratagem.economy import (
    FLAT,
    THREE,
    US_FEDERAL,
    WEEKS,
    AnyWorkers,
    BestResponse,
    Brackets,
    FixedRates,
    TaxEconomy,
    us_income_skills,
)
from stratagem.errors import InputError

SMALL = Brackets((0, 300, 700))
"""Thresholds that workers of a skill of about 20 are near."""

RATES = st.one_of(st.just(0.0), st.floats(1, 100))


def test_it_is_in_the_catalogue():
    assert card("llm_economist").build is TaxEconomy
    assert card("llm_economist").arxiv == "2507.15815"


def test_importing_it_does_not_bring_in_scipy():
    code = "import sys, stratagem.economy; print('scipy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


# ---- one step -------------------------------------------------------------------------------------------------------


def test_income_is_skill_times_weekly_hours():
    outcome = TaxEconomy().settle(np.array([1810.0]), np.array([40.0]), (0, 0, 0))
    assert outcome.income[0] == 72_400


def test_a_step_worked_by_hand():
    # Incomes 100,000 and 200,000 are taxed 11,000 and 35,090; each gets back half of 46,090.
    economy = TaxEconomy(cost=0.5, exponent=2)
    outcome = economy.settle(np.array([2500.0, 4000.0]), np.array([40.0, 50.0]), (10, 20, 30))
    np.testing.assert_allclose(outcome.tax, [11_000, 35_090])
    assert outcome.rebate == pytest.approx(23_045)
    np.testing.assert_allclose(outcome.consumption, [112_045, 187_955])
    np.testing.assert_allclose(outcome.utility, [112_045 - 800, 187_955 - 1250])
    assert outcome.welfare == pytest.approx(111_245 / 100_000 + 186_705 / 200_000)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("income", 111_245 / 100_000 + 186_705 / 200_000), ("skill", 111_245 / 100_000 + 186_705 / 160_000),
     ("equal", 111_245 + 186_705)],
)  # fmt: skip
def test_welfare_can_be_weighted_by_income_by_skill_or_not_at_all(weighting, expected):
    economy = TaxEconomy(cost=0.5, exponent=2, weighting=weighting)
    outcome = economy.settle(np.array([2500.0, 4000.0]), np.array([40.0, 50.0]), (10, 20, 30))
    assert outcome.welfare == pytest.approx(expected)


def test_who_earns_nothing_counts_by_one_dollar():
    outcome = TaxEconomy().settle(np.array([1000.0, 1000.0]), np.array([0.0, 40.0]), (50, 50, 50))
    # Half of 40,000 is taxed and each gets 10,000 of it.
    work = 0.0005 * 40**3.5
    assert outcome.welfare == pytest.approx(10_000 + (30_000 - work) / 40_000)


def test_the_utility_of_those_who_are_not_satisfied_is_halved():
    skills, hours = np.array([2500.0, 4000.0]), np.array([40.0, 50.0])
    economy = TaxEconomy()
    plain = economy.settle(skills, hours, (10, 20, 30))
    halved = economy.settle(skills, hours, (10, 20, 30), lambda outcome: outcome.income < 150_000)
    np.testing.assert_allclose(halved.utility, plain.utility * [1, 0.5])
    assert halved.welfare == pytest.approx((halved.utility / plain.income).sum())


def test_one_worker_gets_all_tax_back():
    outcome = TaxEconomy().settle(np.array([2500.0]), np.array([40.0]), (10, 20, 30))
    assert outcome.consumption[0] == pytest.approx(outcome.income[0])


@settings(deadline=None)
@given(st.lists(st.floats(0, 5000), min_size=1, max_size=20), st.tuples(RATES, RATES, RATES), st.floats(0, 100))
def test_what_is_taxed_is_paid_back(skills, rates, hours):
    outcome = TaxEconomy().settle(np.array(skills), np.full(len(skills), hours), rates)
    assert outcome.tax.sum() == pytest.approx(len(skills) * outcome.rebate)
    assert outcome.consumption.sum() == pytest.approx(outcome.income.sum())


# ---- best responses -------------------------------------------------------------------------------------------------


def test_the_best_response_worked_by_hand():
    economy = TaxEconomy(FLAT)
    assert economy.best_response(np.array([20.0]), [50])[0] == pytest.approx((10 / 0.00175) ** 0.4)
    assert economy.best_response(np.array([20.0]), [50])[0] == pytest.approx(31.8262, abs=1e-4)
    more = economy.best_response(np.array([20.0]), [0])[0]
    assert more / economy.best_response(np.array([20.0]), [50])[0] == pytest.approx(1.319508, abs=1e-6)


def test_the_elasticity_of_hours_is_the_one_that_saez_takes():
    economy = TaxEconomy(FLAT)
    assert economy.elasticity == 0.4
    at, near = (economy.best_response(np.array([20.0]), [rate])[0] for rate in (50.0, 49.999))
    assert np.log(near / at) / np.log(50.001 / 50) == pytest.approx(0.4, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 60), st.tuples(RATES, RATES, RATES), st.sampled_from([1.5, 2.0, 3.5]))
def test_no_other_hours_are_better_even_where_rates_fall(skill, rates, exponent):
    economy = TaxEconomy(SMALL, exponent=exponent, cost={1.5: 2.0, 2.0: 0.2, 3.5: 0.0005}[exponent])
    best = economy.best_response(np.array([skill]), rates)[0]
    tried = np.append(np.linspace(0, 100, 2001), best)
    income = skill * tried
    gain = income - SMALL.tax(income, rates) - economy.cost * tried**exponent
    assert gain[-1] >= gain.max() - 1e-9 * max(1, abs(gain).max())


def test_at_a_full_tax_nobody_works_and_without_skill_neither():
    economy = TaxEconomy(FLAT)
    np.testing.assert_array_equal(economy.best_response(np.array([0.0, 20, 2000]), [100]), 0)
    assert economy.best_response(np.array([0.0]), [0])[0] == 0


def test_work_stops_at_a_threshold_beyond_which_all_is_taken():
    economy = TaxEconomy(SMALL)
    assert economy.best_response(np.array([20.0]), (0, 100, 100))[0] == pytest.approx(300 / 20)


def test_a_high_first_rate_is_jumped_where_the_next_is_low():
    economy = TaxEconomy(SMALL)
    # Up to 300 all is taken, beyond that nothing: 42 hours of 20 dollars are worth it, as many of 1 dollar are not.
    np.testing.assert_allclose(
        economy.best_response(np.array([20.0, 1.0]), (100, 0, 0)), [(20 / 0.00175) ** 0.4, 0], rtol=1e-12
    )


def test_with_the_published_cost_most_work_all_they_can_under_a_tax_of_a_half_and_few_if_it_is_per_week():
    skills = us_income_skills(500, seed=1)
    assert (TaxEconomy(FLAT).best_response(skills, [50]) == 100).mean() > 0.75
    weekly = TaxEconomy(FLAT, cost=WEEKS * 0.0005).best_response(skills, [0])
    assert 38 < np.median(weekly) < 45 and (weekly == 100).mean() < 0.1


def test_hours_broadcast_over_schedules():
    economy = TaxEconomy(SMALL)
    skills, schedules = np.array([5.0, 20, 40]), np.array([[10.0, 20, 30], [90, 0, 50]])
    hours = economy.best_response(skills, schedules)
    assert hours.shape == (2, 3)
    for row, schedule in zip(hours, schedules, strict=True):
        np.testing.assert_array_equal(row, economy.best_response(skills, schedule))


# ---- the reference --------------------------------------------------------------------------------------------------


def test_no_schedule_of_the_grid_is_better_than_the_stackelberg_one():
    economy = TaxEconomy(cost=WEEKS * 0.0005, weighting="skill")
    skills = us_income_skills(20, seed=1)
    best = economy.stackelberg(skills, step=20)
    grid = economy.grid(20)
    assert grid.shape == (216, 3) and len(np.unique(grid, axis=0)) == 216
    assert best.welfare == max(float(economy.respond(skills, schedule).welfare) for schedule in grid)


def test_without_weights_the_best_tax_is_none():
    economy = TaxEconomy(cost=WEEKS * 0.0005, weighting="equal")
    np.testing.assert_array_equal(economy.stackelberg(us_income_skills(30, seed=2), 20).rates, 0)


def test_the_published_welfare_is_largest_where_most_are_idle():
    outcome = TaxEconomy(cost=WEEKS * 0.0005).stackelberg(us_income_skills(50, seed=1))
    assert outcome.rates[0] == 100 and (outcome.hours == 0).mean() > 0.5 and outcome.welfare > 10_000


# ---- many steps -----------------------------------------------------------------------------------------------------


def test_the_planner_acts_every_so_many_steps_and_workers_at_every_one():
    asked = []

    def planner(economy, skills, past):
        asked.append(len(past))
        return past[-1].rates + 10

    economy = TaxEconomy(every=3, history=4)
    played = economy.run(np.array([1000.0]), BestResponse(), planner, 8)
    assert [outcome.rates[0] for outcome in played] == [50, 50, 50, 60, 60, 60, 70, 70]
    assert asked == [3, 4]


def test_rates_move_by_no_more_than_twenty_points_and_stay_in_range():
    economy = TaxEconomy(every=1)
    played = economy.run(np.array([1000.0]), BestResponse(), FixedRates((0, 100, 55)), 5)
    np.testing.assert_array_equal(
        [outcome.rates for outcome in played], [[50, 50, 50], [30, 70, 55], [10, 90, 55], [0, 100, 55], [0, 100, 55]]
    )
    np.testing.assert_array_equal(economy.decide(np.array([90.0, 10, 50]), [120, -40, 50.6]), [100, 0, 51])
    free = TaxEconomy(every=1, largest_move=None)
    np.testing.assert_array_equal(free.decide(np.array([50.0, 50, 50]), [0, 100, 0.3]), [0, 100, 0])


def test_economies_side_by_side_are_those_alone():
    skills = np.stack([us_income_skills(6, seed) for seed in (1, 2)])
    economy = TaxEconomy(every=2, cost=WEEKS * 0.0005)

    def planner(economy, skills, past):
        return np.where(past[-1].welfare[..., None] > 6, 90.0, 10.0) * np.ones(3)

    both = economy.run(skills, BestResponse(), planner, 7)
    for number in range(2):
        alone = economy.run(skills[number], BestResponse(), planner, 7)
        for joint, single in zip(both, alone, strict=True):
            np.testing.assert_allclose(joint.utility[number], single.utility)
            np.testing.assert_array_equal(joint.rates[number], single.rates)


def test_workers_may_be_any_function():
    played = TaxEconomy().run(
        np.array([1000.0, 2000.0]),
        AnyWorkers(lambda economy, skills, rates, past: np.full(2, 10.0 * len(past))),
        FixedRates((0, 0, 0)),
        3,
    )
    assert [outcome.hours.tolist() for outcome in played] == [[0, 0], [10, 10], [20, 20]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cost": -1}, r"llm_economist\.cost = -1: must be at least 0"),
        ({"exponent": 1.0}, r"llm_economist\.exponent = 1\.0: must be above 1"),
        ({"most_hours": 0}, r"llm_economist\.most_hours = 0: must be positive"),
        ({"weighting": "poor"}, r"llm_economist\.weighting = 'poor': must be income, skill or equal"),
        ({"every": 0}, r"llm_economist\.every = 0: must be at least 1"),
        ({"largest_move": 0}, r"llm_economist\.largest_move = 0: must be positive or None"),
        ({"history": 0}, r"llm_economist\.history = 0: must be at least 1"),
        ({"start": 0.5}, r"tax rate 0\.5: must be in percent"),
    ],
)
def test_values_out_of_range_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        TaxEconomy(**values)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda e: e.settle(np.array([1.0]), np.array([101.0]), (0, 0, 0)), "hours: must be from 0 to 100"),
        (lambda e: e.settle(np.array([1.0]), np.array([np.nan]), (0, 0, 0)), "hours: must be from 0 to 100"),
        (lambda e: e.settle(np.array([-1.0]), np.array([1.0]), (0, 0, 0)), "skills: must be"),
        (lambda e: e.best_response(np.array([]), (0, 0, 0)), "skills: must be those of at least one worker"),
        (lambda e: e.run(np.array([1.0]), BestResponse(), FixedRates((0, 0, 0)), 0), "steps = 0: must be at least 1"),
        (lambda e: e.grid(30), "step = 30: must be from 1 to 100 and divide 100"),
        (lambda e: TaxEconomy(US_FEDERAL).grid(), "more than 200,000 schedules; take a larger step"),
        (lambda e: e.decide(np.zeros(3), [np.nan, 0, 0]), "proposed tax rates: must be finite"),
    ],
)
def test_bad_input_is_refused(ask, said):
    with pytest.raises(InputError, match=said):
        ask(TaxEconomy(THREE))
