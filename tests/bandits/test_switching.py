"""Cycles of rest and play: the program, the correlation gap, virtual arms and their dominance, learning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.bandits import (
    BestNow,
    KnownCycles,
    LastSwitchBandit,
    LearnedCycles,
    RecoveringBandit,
    RestAndPlay,
    RestBlind,
    follow,
    upper_bound,
)
from stratagem.bandits.switching import GUARANTEE, exploration_script
from stratagem.catalogue import card
from stratagem.errors import InputError

ONE = np.array([0.1, 0.1, 0.6, 1.0, 1.0])
"""Payoffs in -3, -2, -1, 1, 2."""


def test_it_is_in_the_catalogue():
    assert card("lsd_bandits").build is RestAndPlay and card("lsd_bandits").arxiv == "2306.00338"


def test_the_program_of_one_arm_worked_by_hand():
    plan = RestAndPlay().plan(ONE[None], 3)
    # Rest 1, play 2: (1 + .6) / 3; against .5 for (1, 1) and 1.7 / 4 for (1, 3).
    assert plan.value == pytest.approx(1.6 / 3)
    assert plan.frequency[0, 0, 1] == pytest.approx(1 / 3) and plan.frequency.sum() == pytest.approx(1 / 3)


def test_two_arms_alternate():
    plan = RestAndPlay().plan(np.tile(ONE, (2, 1)), 3)
    assert plan.value == pytest.approx(1.0)
    np.testing.assert_allclose(plan.frequency[:, 0, 0], 0.5)
    # Two independent virtual arms that play half of the time meet in a quarter of the rounds.
    assert plan.expected() == pytest.approx(0.75)


def test_an_arm_that_never_tires_plays_on_for_ever():
    plan = RestAndPlay().plan(np.full((1, 5), 0.5), 3)
    assert plan.value == pytest.approx(0.5) and plan.expected() == pytest.approx(0.5)


def test_the_optimum_of_two_arms_lies_below_the_program():
    payoffs = np.array([[0.05, 0.05, 0.05, 0.1, 0.2, 0.5, 0.9, 1], [0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]])
    plan = RestAndPlay().plan(payoffs, 4)
    assert LastSwitchBandit(payoffs[None], 4).best_average()[0] == pytest.approx(0.375, abs=1e-6)
    assert plan.value == pytest.approx(0.391667, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_virtual_arms_earn_their_share_of_the_program_and_of_no_more(seed, arms, fresh, tired):
    bandit = LastSwitchBandit.drawn(1, seed, arms, fresh, tired)
    plan = RestAndPlay().plan(bandit.payoffs[0], tired)
    assert GUARANTEE * plan.value - 1e-9 <= plan.expected() <= plan.value + 1e-9
    rests, plays = np.arange(1, fresh + 1)[:, None], np.arange(1, tired + 1)
    assert np.all((plan.frequency * (rests + plays)).sum((1, 2)) + plan.steady <= 1 + 1e-9)
    assert (plan.frequency * plays).sum() + plan.steady.sum() <= 1 + 1e-9
    if (fresh + tired) ** arms <= 600:
        assert bandit.best_average()[0] <= plan.value + 1e-6


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_for_recharging_arms_the_program_is_the_bound_of_periodic_plans(seed):
    recovery = RecoveringBandit.drawn(1, seed, arms=3, longest=5).payoffs
    bandit = LastSwitchBandit.recharging(recovery)
    assert RestAndPlay().plan(bandit.payoffs[0], 1).value == pytest.approx(upper_bound(recovery[0], 1))


class _Watched(KnownCycles):
    """Notes what virtual arms do beside real ones."""

    def start(self, bandit, rounds, generator):
        super().start(bandit, rounds, generator)
        self.bandit, self.plays, self.ahead = bandit, [], []

    def choose(self, number, states):
        played = super().choose(number, states)
        plays, virtual = self.virtual_states(number)
        self.plays.append(plays)
        self.ahead.append(states[played] >= virtual[played])
        assert np.all(plays | ~played) and np.all(played.sum(-1) == plays.any(-1))
        return played


def test_a_real_arm_is_never_more_tired_than_its_virtual_self():
    scheduler = _Watched()
    follow(LastSwitchBandit.drawn(100, 3, arms=5), scheduler, 300, 1)
    assert np.concatenate(scheduler.ahead).all()


def test_virtual_arms_play_as_often_as_the_program_says():
    bandit = LastSwitchBandit(np.tile(LastSwitchBandit.drawn(1, 3).payoffs, (800, 1, 1)), 3)
    scheduler = _Watched()
    follow(bandit, scheduler, 40, 1)
    plan = scheduler.plans[0]
    share = (plan.frequency * np.arange(1, 4)).sum((1, 2)) + plan.steady
    found = np.stack(scheduler.plays).mean(0)
    assert np.all(np.abs(found.mean(0) - share) < 4 * found.std(0) / np.sqrt(800) + 1e-9)


def test_what_virtual_arms_collect_is_at_least_what_is_expected():
    bandit = LastSwitchBandit(np.tile(LastSwitchBandit.drawn(1, 5).payoffs, (800, 1, 1)), 3)
    scheduler = KnownCycles()
    collected = follow(bandit, scheduler, 60, 1).mean(-1)
    assert collected.mean() > scheduler.plans[0].expected() - 4 * collected.std() / np.sqrt(800)


def test_planning_beats_greed_where_an_arm_recovers_slowly():
    deep = np.array([0.05, 0.05, 0.05, 0.12, 0.12, 0.12, 0.12, 1.0])
    bandit = LastSwitchBandit(np.tile(np.stack([deep, *[np.full(8, 0.1)] * 3]), (40, 1, 1)), 3)
    planned, greedy = (follow(bandit, one, 600, 1).mean() for one in (KnownCycles(), BestNow()))
    assert planned > 1.5 * greedy


# ---- online ---------------------------------------------------------------------------------------------------------


def test_a_sweep_plays_every_arm_in_every_state():
    bandit = LastSwitchBandit.drawn(2, 3)
    script = exploration_script(bandit.arms, bandit.fresh, bandit.tired, sweeps=2)
    scheduler = LearnedCycles(sweeps=2)
    follow(bandit, scheduler, len(script), 1)
    assert np.all(scheduler._seen.count >= 1)
    assert len(script) == 2 * 4 * (1 + sum(rest + 4 for rest in range(1, 6)))


def test_without_noise_and_doubt_what_is_learned_is_what_is_known():
    bandit = LastSwitchBandit(np.tile(ONE, (60, 2, 1)), 3, noisy=False)
    learned = follow(bandit, LearnedCycles(confidence=1e-9), 1500, 1)[:, -300:].mean(-1)
    assert learned.mean() > 0.75 - 4 * learned.std() / np.sqrt(60)


def test_learning_beats_being_blind_to_rest():
    bandit = LastSwitchBandit.drawn(10, 3)
    learned, blind = (follow(bandit, one, 6000, 1)[:, -2000:].mean() for one in (LearnedCycles(), RestBlind()))
    assert learned > blind


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: RestAndPlay().plan(np.array([[0.5, 0.2]]), 1), "may not fall"),
        (lambda: RestAndPlay().plan(np.array([[0.5, np.inf]]), 1), "finite"),
        (lambda: RestAndPlay().plan(np.array([[0.5, 0.6]]), 2), "tired = 2: must be from 1 to 1"),
        (lambda: LearnedCycles(growth=1), "growth=1"),
        (lambda: LearnedCycles(sweeps=0), "sweeps=0"),
        (lambda: follow(RecoveringBandit(np.zeros((1, 2, 2))), KnownCycles(), 3, 0), "not for a RecoveringBandit"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
