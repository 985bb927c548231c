"""Formulas of the parts, on numbers worked by hand: what is compiled later is plain Python here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.games import (
    ConstantOptimism,
    Discount,
    FadingOptimism,
    MagnitudeAverage,
    Matching,
    NoDiscount,
    PolynomialAverage,
    PowerDiscount,
    Regrets,
    VolatileDiscount,
    Volatility,
)

TIMES = st.integers(1, 10**6)


def row(part, t: int) -> np.ndarray:
    """What a part reads at one iteration."""
    return part.factors(np.array([float(t)]))[0]


def kept(discount: Discount, regret: float, t: int, volatility: float = 0.0) -> float:
    return float(type(discount).kept(regret, volatility, row(discount, t)))


# ---- discounts ------------------------------------------------------------------------------------------------------


def test_nothing_is_discounted_by_no_discount():
    assert kept(NoDiscount(), 2.0, 7) == kept(NoDiscount(), -2.0, 7) == 1.0


@pytest.mark.parametrize(("t", "positive"), [(2, 1 / 2), (5, 8 / 9), (10, 27 / 28)])
def test_discounted_cfr_keeps_what_the_iteration_before_says(t, positive):
    discount = PowerDiscount(1.5, 0.0)
    assert kept(discount, 1.0, t) == pytest.approx(positive)
    assert kept(discount, -1.0, t) == 0.5
    assert kept(PowerDiscount(1.5, 0.0, lag=0), 1.0, t - 1) == pytest.approx(positive)


def test_volatility_lowers_both_exponents():
    # Iteration 1: 1 to any power is 1. Iteration 10, v = .47: alpha = 1.265, beta = -.335.
    assert kept(VolatileDiscount(), 2.0, 1, 0.5) == kept(VolatileDiscount(), -2.0, 1, 0.5) == 0.5
    assert kept(VolatileDiscount(), 2.0, 10, 0.47) == pytest.approx(0.948474, abs=1e-6)
    assert kept(VolatileDiscount(), -3.0, 10, 0.47) == pytest.approx(0.316184, abs=1e-6)


def test_the_least_exponent_holds_and_the_negative_one_never_exceeds_the_positive():
    strong = VolatileDiscount(fall=10.0, least=0.1)
    assert kept(strong, 1.0, 10, 1.0) == pytest.approx(10**0.1 / (10**0.1 + 1))
    # beta = 5 - .5 would be above alpha = 1.5 - .5.
    assert kept(VolatileDiscount(beta=5.0), -1.0, 10, 1.0) == kept(VolatileDiscount(beta=5.0), 1.0, 10, 1.0)


@given(t=TIMES, volatility=st.floats(0, 1), alpha=st.floats(-5, 5), beta=st.floats(-5, 5))
def test_a_discount_is_a_share(t, volatility, alpha, beta):
    for discount in (PowerDiscount(alpha, beta), VolatileDiscount(alpha, beta)):
        for regret in (1.0, -1.0):
            assert 0 <= kept(discount, regret, t, volatility) <= 1


@given(t=TIMES, alpha=st.floats(0.1, 3), beta=st.floats(-3, 0.1))
def test_without_volatility_it_is_the_power_discount(t, alpha, beta):
    still = VolatileDiscount(alpha, beta)
    for regret in (1.0, -1.0):
        assert kept(still, regret, t) == pytest.approx(kept(PowerDiscount(alpha, beta, lag=0), regret, t))


# ---- optimism -------------------------------------------------------------------------------------------------------


def test_optimism_fades_with_time_and_volatility():
    def amount(t: int, volatility: float) -> float:
        return float(FadingOptimism.amount(volatility, row(FadingOptimism(), t)))

    assert amount(1, 0.0) == 1.0 and amount(101, 0.0) == 0.5
    # The tenth iteration, v = .47: (1 - .235) / 1.09.
    assert amount(10, 0.47) == pytest.approx(0.7018349, abs=1e-7)


def test_constant_optimism_is_constant():
    assert {float(ConstantOptimism.amount(v, row(ConstantOptimism(0.7), t))) for v in (0, 1) for t in (1, 9)} == {0.7}


# ---- averages -------------------------------------------------------------------------------------------------------


def test_magnitude_weighs_the_average():
    average = MagnitudeAverage(warm_up=500)
    assert MagnitudeAverage.weight(0.4, row(average, 500)) == 0.0
    weight = MagnitudeAverage.weight(0.4, row(average, 501))
    assert weight == pytest.approx(501**2.3 / (1 + 0.4**1.5) * math.sqrt(1.2))
    assert weight == pytest.approx(1.41668e6, rel=1e-5)


def test_the_exponent_of_the_average_stops_growing():
    big = MagnitudeAverage.weight(1e3, row(MagnitudeAverage(warm_up=0, gain=9.0), 10))
    assert big == pytest.approx(10**4 / (1 + 1000**1.5) * math.sqrt(501))


@pytest.mark.parametrize(("power", "weights"), [(0, [0, 1, 1, 1]), (1, [0, 2, 3, 4]), (2, [0, 4, 9, 16])])
def test_a_polynomial_average_weighs_by_the_iteration_once_warm(power, weights):
    found = PolynomialAverage(power, warm_up=1).factors(np.arange(1.0, 5.0))
    assert [float(PolynomialAverage.weight(3.0, one)) for one in found] == weights


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: Regrets(floor=1.0), r"^regrets\.floor = 1\.0: "),
        (lambda: Regrets(boost=0.0), r"^regrets\.boost = 0\.0: "),
        (lambda: Matching(exponent=0.0), r"^matching\.exponent = 0\.0: "),
        (lambda: Matching(discount="power"), r"^matching\.discount = 'power': "),
        (lambda: ConstantOptimism(-0.1), r"^constant_optimism\.weight = -0\.1: "),
        (lambda: FadingOptimism(horizon=0), r"^fading_optimism\.horizon = 0: "),
        (lambda: Volatility(rate=0.0), r"^volatility\.rate = 0\.0: "),
        (lambda: Volatility(scale=-1.0), r"^volatility\.scale = -1\.0: "),
        (lambda: PowerDiscount(lag=2), r"^power_discount\.lag = 2: "),
        (lambda: PolynomialAverage(warm_up=-1), r"^polynomial_average\.warm_up = -1: "),
        (lambda: MagnitudeAverage(warm_up=0.5), r"^magnitude_average\.warm_up = 0\.5: "),
    ],
)
def test_a_wrong_value_is_named(build, error):
    with pytest.raises(InputError, match=error):
        build()
