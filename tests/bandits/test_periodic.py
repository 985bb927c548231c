"""Purely periodic policies: the bound, rounding, packing, the guarantee, and learning the recoveries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from stratagem.bandits import (
    ExploreThenPlan,
    KnownPeriods,
    LearnedPeriods,
    PeriodicPlan,
    PurelyPeriodic,
    RecoveringBandit,
    RestBlind,
    follow,
    upper_bound,
)
from stratagem.bandits.periodic import _packed, _raised, envelope
from stratagem.catalogue import card
from stratagem.errors import InputError

RISING = np.array([0.2, 0.8, 1.0, 1.0, 1.0])


@st.composite
def problems(draw, most_slots=6):
    source = np.random.default_rng(draw(st.integers(0, 2**32)))
    arms, delays = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    recovery = np.sort(source.random((arms, delays)) ** draw(st.sampled_from([0.3, 1, 3])), -1)
    return recovery * (source.random((arms, 1)) < 0.9), draw(st.integers(1, most_slots))


def test_it_is_in_the_catalogue():
    assert card("recovering_rewards").build is PurelyPeriodic and card("recovering_rewards").arxiv == "2106.14813"


def test_the_envelope_worked_by_hand():
    # Points (1/3, 1/3) and (1/2, .4); pulling at every round, (1, .2), is worse than at every other.
    assert envelope(RISING) == [3, 2]
    assert envelope(np.zeros(3)) == []
    assert envelope(np.full(4, 0.5)) == [1]


@pytest.mark.parametrize(("arms", "bound"), [(2, 0.8), (3, 1.0), (4, 1.0)])
def test_the_bound_worked_by_hand_and_reached(arms, bound):
    recovery = np.tile(RISING, (arms, 1))
    assert upper_bound(recovery, 1) == pytest.approx(bound)
    plan = PurelyPeriodic().plan(recovery, 1)
    assert plan.value(recovery) == pytest.approx(bound)
    assert sorted(plan.periods[plan.periods > 0].tolist()) == ([2, 2] if arms == 2 else [3, 3, 3])


@settings(deadline=None)
@given(problems())
def test_the_bound_is_that_of_a_linear_program(problem):
    """Weights on delays: maximise sum w R(d) / d with sum w <= 1 for each arm and sum w / d <= slots."""
    recovery, slots = problem
    arms, delays = recovery.shape
    rate = 1 / np.arange(1, delays + 1)
    solved = linprog(
        -(recovery * rate).ravel(),
        A_ub=np.vstack([np.kron(np.eye(arms), np.ones(delays)), np.tile(rate, arms)]),
        b_ub=[1.0] * arms + [slots],
    )
    assert upper_bound(recovery, slots) == pytest.approx(-solved.fun, abs=1e-7)


@pytest.mark.parametrize(("classes", "worst"), [(1, 1.9922), (2, 1.4942), (3, 1.3299), (5, 1.1963)])
def test_periods_are_raised_by_less_than_one_over_the_classes(classes, worst):
    ratios = [_raised(period, classes) / period for period in range(1, 400)]
    assert min(ratios) >= 1 and max(ratios) == pytest.approx(worst, abs=1e-4) and max(ratios) < 1 + 1 / classes


@settings(deadline=None)
@given(problems(), st.one_of(st.none(), st.integers(1, 4)))
def test_a_plan_fits_into_its_slots_and_earns_no_more_than_the_bound(problem, classes):
    recovery, slots = problem
    plan = PurelyPeriodic(classes).plan(recovery, slots)
    assert plan.load() <= slots
    assert plan.value(recovery) <= upper_bound(recovery, slots) + 1e-9
    assert np.all((plan.offsets < plan.periods) | (plan.periods == 0))


@settings(deadline=None)
@given(problems(most_slots=12), st.integers(1, 4))
def test_a_plan_keeps_its_guarantee(problem, classes):
    recovery, slots = problem
    classes = min(classes, slots)
    promised = classes / (classes + 1) * (slots - classes) / slots * upper_bound(recovery, slots)
    given_, free = (PurelyPeriodic(one).plan(recovery, slots).value(recovery) for one in (classes, None))
    assert given_ >= promised - 1e-9 and free >= promised - 1e-9


def test_with_one_slot_the_arm_that_did_not_fit_may_be_played_alone():
    recovery = np.array([[0.0, 0.0, 0.0, 0.1], [0.9, 0.9, 0.9, 0.9]])
    plan = PurelyPeriodic(1).plan(recovery, 1)
    assert plan.value(recovery) == pytest.approx(0.9)


@given(st.lists(st.sampled_from([0, 1, 2, 4, 8, 3, 6, 12, 5, 10]), max_size=12))
def test_each_family_packs_without_a_gap(periods):
    plan = _packed(periods)
    families = {}
    for period in filter(None, periods):
        families.setdefault(period // (period & -period), []).append(1 / period)
    assert plan.load() <= sum(int(np.ceil(sum(loads) - 1e-9)) for loads in families.values())


def test_no_slots_and_arms_that_pay_nothing_are_left_alone():
    assert PurelyPeriodic().plan(np.tile(RISING, (2, 1)), 0).periods.tolist() == [0, 0]
    assert upper_bound(np.tile(RISING, (2, 1)), 0) == 0
    assert PurelyPeriodic().plan(np.zeros((2, 3)), 1).value(np.zeros((2, 3))) == 0
    assert PeriodicPlan(np.zeros(2, int), np.zeros(2, int)).load() == 0


def test_without_recovery_the_best_arms_play_in_every_round():
    recovery = np.tile(np.array([0.3, 0.9, 0.5, 0.7])[:, None], (1, 3))
    plan = PurelyPeriodic(1).plan(recovery, 2)
    assert plan.periods.tolist() == [0, 1, 0, 1] and plan.value(recovery) == pytest.approx(1.6)


def test_more_slots_than_arms_do_not_play_them_more_often_than_pays():
    assert PurelyPeriodic(1).plan(np.tile(RISING, (2, 1)), 5).periods.tolist() == [2, 2]


def test_the_plan_lies_between_the_exact_optimum_and_its_guarantee():
    bandit = RecoveringBandit.drawn(6, 4, arms=2, slots=1, longest=3)
    best = bandit.best_average()
    for run, recovery in enumerate(bandit.payoffs):
        value = PurelyPeriodic().plan(recovery, 1).value(recovery)
        assert value <= best[run] + 1e-6 and best[run] <= upper_bound(recovery, 1) + 1e-6


def test_no_schedule_beats_the_bound():
    bandit = RecoveringBandit.drawn(30, 5, arms=4, slots=2, longest=5)
    bound = np.array([upper_bound(recovery, 2) for recovery in bandit.payoffs])
    for scheduler in (RestBlind(), LearnedPeriods(), KnownPeriods()):
        collected = follow(bandit, scheduler, 500, 1).mean(-1)
        assert np.all(collected <= bound + 4 / 500)


def test_what_a_known_plan_collects_is_its_value():
    bandit = RecoveringBandit.drawn(5, 5)
    value = np.array([PurelyPeriodic().plan(recovery, 2).value(recovery) for recovery in bandit.payoffs])
    np.testing.assert_allclose(follow(bandit, KnownPeriods(), 2400, 1).mean(-1), value, atol=8 / 2400)


# ---- online ---------------------------------------------------------------------------------------------------------


def test_what_is_learned_without_noise_is_the_plan_that_knows():
    bandit = RecoveringBandit.drawn(3, 8, arms=3, slots=1, longest=3)
    bandit.noisy = False
    value = np.array([PurelyPeriodic().plan(recovery, 1).value(recovery) for recovery in bandit.payoffs])
    for scheduler in (ExploreThenPlan(samples=1), LearnedPeriods(confidence=1e-6)):
        tail = follow(bandit, scheduler, 3000, 1)[:, -600:].mean(-1)
        np.testing.assert_allclose(tail, value, atol=0.01)


def test_exploring_plays_every_arm_at_every_delay():
    bandit = RecoveringBandit.drawn(2, 8, arms=5, slots=2, longest=4)
    scheduler = ExploreThenPlan(samples=3)
    follow(bandit, scheduler, 3 * (1 + 10 * 3), 1)
    assert np.all(scheduler._seen.count >= 3) and scheduler._seen.count.sum() == 2 * 5 * (1 + 4 * 3)


def test_learning_gets_better_with_time():
    bandit = RecoveringBandit.drawn(4, 8, arms=4, slots=1, longest=3)
    collected = follow(bandit, LearnedPeriods(), 8000, 1)
    assert collected[:, -2000:].mean() > collected[:, :2000].mean() + 0.02


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: PurelyPeriodic(0), "classes=0"),
        (lambda: PurelyPeriodic().plan(np.array([[0.5, 0.2]]), 1), "may not fall"),
        (lambda: PurelyPeriodic().plan(np.array([[-0.5, 0.2]]), 1), "not negative"),
        (lambda: upper_bound(np.zeros((0, 3)), 1), "at least one arm"),
        (lambda: LearnedPeriods(phase=0), "phase=0"),
        (lambda: LearnedPeriods(confidence=0), "confidence=0"),
        (lambda: ExploreThenPlan(samples=0), "samples=0"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
