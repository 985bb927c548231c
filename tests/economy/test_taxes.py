"""Taxes: numbers worked by hand, and the rates of Saez's formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde

from stratagem.economy import FLAT, SAEZ_THREE, THREE, US_FEDERAL, US_FEDERAL_RATES, Brackets, saez_rates
from stratagem.errors import InputError

INCOMES = np.array([10_000.0, 30_000.0, 60_000.0, 100_000.0, 120_000.0, 200_000.0, 400_000.0])

RATES = st.one_of(st.just(0.0), st.floats(1, 100))


def test_the_tax_worked_by_hand():
    income = np.array([0.0, 90_000, 100_000, 159_100, 200_000])
    expected = [0.0, 9000, 9000 + 2000, 9000 + 13_820, 9000 + 13_820 + 12_270]
    np.testing.assert_allclose(THREE.tax(income, (10, 20, 30)), expected)


def test_a_flat_tax_and_the_federal_tax_worked_by_hand():
    assert FLAT.tax(np.array([1234.0]), [25])[0] == pytest.approx(308.5)
    # 10 % of 11,600, 12 % of 35,550 and 22 % of 2,850.
    assert US_FEDERAL.tax(np.array([50_000.0]), US_FEDERAL_RATES)[0] == pytest.approx(1160 + 4266 + 627)


@settings(deadline=None)
@given(st.tuples(RATES, RATES, RATES), st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_tax_rises_with_income_and_never_takes_more_than_there_is(rates, one, other):
    low, high = THREE.tax(np.sort([one, other]), rates)
    assert -1e-9 <= low <= high + 1e-6
    assert high <= max(one, other) + 1e-6


def test_schedules_broadcast_over_workers():
    rates = np.array([[10.0, 20, 30], [0, 0, 0]])
    tax = THREE.tax(INCOMES, rates)
    assert tax.shape == (2, 7)
    np.testing.assert_array_equal(tax[0], THREE.tax(INCOMES, rates[0]))
    assert not tax[1].any()


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((0.1, 0.2, 0.3), r"tax rate 0\.1: must be in percent, 0 or from 1 to 100; 0\.5 is not read as 50 %"),
        ((10, 20, 101), "tax rate 101: must be in percent"),
        ((10, -1, 30), "tax rate -1: must be in percent"),
        ((10, np.nan, 30), "tax rate nan: must be in percent"),
        ((10, 20), r"tax rates of shape \(2,\): must be 3, one for every bracket"),
        (10, r"tax rates of shape \(\)"),
    ],
)
def test_wrong_rates_are_refused(rates, said):
    with pytest.raises(InputError, match=said):
        THREE.tax(INCOMES, rates)


@pytest.mark.parametrize("thresholds", [(), (1.0,), (0.0, 5.0, 5.0), (0.0, 9.0, 4.0), (0.0, np.inf)])
def test_wrong_thresholds_are_refused(thresholds):
    with pytest.raises(InputError, match="thresholds must begin at 0 and rise"):
        Brackets(thresholds)


def test_a_negative_income_is_refused():
    with pytest.raises(InputError, match="income: must be at least 0"):
        THREE.tax(np.array([-1.0]), (10, 20, 30))


# ---- Saez -----------------------------------------------------------------------------------------------------------


def test_the_rates_of_saez_worked_with_another_density_estimate():
    weight = 1 / INCOMES
    density = gaussian_kde(INCOMES)
    expected = []
    for at, beyond, e in ((45_000.0, 5 / 7, 0.18), (124_550.0, 2 / 7, 0.11)):
        g = weight[at < INCOMES].mean() / weight.mean()
        expected.append((1 - g) / (1 - g + at * density(at)[0] / beyond * e))
    # At the top m = (200,000 + 400,000) / 2, so that a = 300,000 / 140,900.
    g = weight[-2:].mean() / weight.mean()
    expected.append((1 - g) / (1 - g + 300_000 / 140_900 * 0.57))
    np.testing.assert_allclose(saez_rates(INCOMES, THREE, SAEZ_THREE), np.round(100 * np.array(expected), 2))


def test_the_last_bracket_can_be_evaluated_at_its_mean_income():
    # From 300,000 up there is 400,000 alone.
    weight = 1 / INCOMES
    g = weight[-1] / weight.mean()
    a = 400_000 / (400_000 - 159_100)
    rates = saez_rates(INCOMES, THREE, SAEZ_THREE, top="mean")
    assert rates[-1] == pytest.approx(100 * (1 - g) / (1 - g + a * 0.57), abs=0.005)
    np.testing.assert_array_equal(rates[:2], saez_rates(INCOMES, THREE, SAEZ_THREE)[:2])


def test_where_nobody_earns_as_much_the_weight_is_zero_and_the_tail_is_ten():
    rates = saez_rates(INCOMES[:4], THREE, 0.4)
    assert rates[-1] == pytest.approx(100 / (1 + 10 * 0.4))


def test_a_more_elastic_income_is_taxed_less():
    rates = [saez_rates(INCOMES, THREE, e) for e in (0.1, 0.4, 2.0)]
    assert (rates[0] > rates[1]).all() and (rates[1] > rates[2]).all()


def test_one_bracket_has_one_rate():
    at = INCOMES.mean()
    beyond = at < INCOMES
    weight = 1 / INCOMES
    g = weight[beyond].mean() / weight.mean()
    a = at * gaussian_kde(INCOMES)(at)[0] / beyond.mean()
    assert saez_rates(INCOMES, FLAT)[0] == pytest.approx(100 * (1 - g) / (1 - g + 0.4 * a), abs=0.005)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30, unique=True), st.floats(0.01, 10))
def test_rates_of_saez_are_rates(incomes, elasticity):
    rates = saez_rates(np.array(incomes), US_FEDERAL, elasticity)
    np.testing.assert_array_equal(US_FEDERAL.rates(rates), rates)


@pytest.mark.parametrize(
    ("incomes", "elasticity", "said"),
    [
        ([5.0], 0.4, "at least two different amounts"),
        ([5.0, 5.0], 0.4, "at least two different amounts"),
        ([5.0, -6.0], 0.4, "none negative"),
        ([5.0, 6.0], 0.0, r"elasticity = 0\.0: must be positive, one or 3"),
        ([5.0, 6.0], (0.1, 0.2), r"elasticity = \(0\.1, 0\.2\): must be positive, one or 3"),
    ],
)
def test_what_saez_cannot_be_computed_from_is_refused(incomes, elasticity, said):
    with pytest.raises(InputError, match=said):
        saez_rates(np.array(incomes), THREE, elasticity)
