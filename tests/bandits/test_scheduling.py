"""Arms with states: transitions, exact optima by brute force, and schedulers that know or learn nothing."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.bandits import BestNow, LastSwitchBandit, RecoveringBandit, RestBlind, RoundRobin, Scheduler, follow
from stratagem.bandits.scheduling import Confidence
from stratagem.errors import InputError

RISING = np.array([0.2, 0.8, 1.0, 1.0, 1.0])


def _after(bandit, state, played):
    return int(bandit.after(np.array([[state]]), np.array([[played]]))[0, 0])


def test_the_transitions_of_last_switches():
    bandit = LastSwitchBandit(np.zeros((1, 1, 7)), tired=3)
    name = {-3: 0, -2: 1, -1: 2, 1: 3, 2: 4, 3: 5, 4: 6}
    for state, played, then in (
        (3, True, -1), (-2, True, -3), (-2, False, 1), (1, False, 2), (-3, True, -3), (4, False, 4), (-1, True, -2),
    ):  # fmt: skip
        assert _after(bandit, name[state], played) == name[then]


def test_the_transitions_of_recovering_arms():
    bandit = RecoveringBandit(np.zeros((1, 1, 3)))
    assert [_after(bandit, state, False) for state in range(3)] == [1, 2, 2]
    assert [_after(bandit, state, True) for state in range(3)] == [0, 0, 0]


def test_recharging_is_a_last_switch_with_one_tired_state():
    """mu(-k) = R(1) and mu(s) = R(s + 1): the same payoffs whatever is played."""
    recovery = np.sort(np.random.default_rng(1).random((2, 3, 4)), -1)
    first, second = RecoveringBandit(recovery, noisy=False), LastSwitchBandit.recharging(recovery, noisy=False)
    states, others = first.rested(), second.rested()
    source = np.random.default_rng(2)
    for _ in range(40):
        np.testing.assert_array_equal(first.paid(states), second.paid(others))
        played = np.eye(3, dtype=bool)[source.integers(3, size=2)]
        states, others = first.after(states, played), second.after(others, played)


def _brute(bandit, rounds):
    """The largest payoff of one run over all schedules of so many rounds."""
    choices = [np.array(bits) for bits in product((False, True), repeat=bandit.arms) if sum(bits) <= bandit.slots]
    best = {tuple(bandit.rested()[0]): 0.0}
    for _ in range(rounds):
        found: dict[tuple[int, ...], float] = {}
        for state, value in best.items():
            now = np.array([state])
            for played in choices:
                paid = value + float(bandit.paid(now)[0][played].sum())
                then = tuple(bandit.after(now, played[None])[0].tolist())
                found[then] = max(found.get(then, 0.0), paid)
        best = found
    return max(best.values())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_average_is_that_of_dynamic_programming(seed):
    recovering = RecoveringBandit.drawn(1, seed, arms=2, slots=1, longest=3)
    switching = LastSwitchBandit.drawn(1, seed, arms=2, fresh=2, tired=2)
    for bandit in (recovering, switching):
        long = _brute(bandit, 120) - _brute(bandit, 60)
        # The payoff of 60 more rounds is 60 averages but for where the cycle is cut.
        assert abs(long / 60 - bandit.best_average()[0]) < 2 / 60 + 1e-6


def test_the_best_average_of_arms_that_need_two_rounds():
    for arms, expected in ((2, 0.8), (3, 1.0), (4, 1.0)):
        bandit = RecoveringBandit(np.tile(RISING, (1, arms, 1)))
        assert bandit.best_average()[0] == pytest.approx(expected, abs=1e-6)


def test_a_problem_too_large_says_how_large():
    with pytest.raises(InputError, match="1,679,616 joint states"):
        RecoveringBandit.drawn(1, 0, arms=8, longest=6).best_average()


def test_the_mean_of_what_is_paid_is_the_payoff():
    class Heard(RoundRobin):
        def start(self, bandit, rounds, generator):
            super().start(bandit, rounds, generator)
            self.total = 0.0

        def update(self, states, played, payoffs):
            assert np.all(payoffs[~played] == 0) and set(np.unique(payoffs)) <= {0.0, 2.0}
            self.total = self.total + payoffs.sum(-1)

    scheduler = Heard()
    bandit = RecoveringBandit(np.tile(RISING, (300, 2, 1)), largest=2.0)
    collected = follow(bandit, scheduler, 50, 0)
    np.testing.assert_allclose(collected[:, 4:], 0.8)
    assert abs(scheduler.total.mean() - collected.sum(-1).mean()) < 4 * scheduler.total.std() / np.sqrt(300)


def test_the_best_now_takes_the_best_arms_and_none_that_pays_nothing():
    bandit = RecoveringBandit(np.array([[[0.0, 0.0], [0.3, 0.9], [0.5, 0.5]]]), slots=2)
    collected = follow(bandit, BestNow(), 3, 0)
    np.testing.assert_allclose(collected, [[1.4, 0.8, 0.8]])
    assert follow(RecoveringBandit(np.zeros((1, 2, 2))), BestNow(), 3, 0).sum() == 0


def test_turns_are_taken_with_several_slots():
    scheduler = RoundRobin()
    scheduler.start(RecoveringBandit(np.zeros((1, 3, 2)), slots=2), 9, np.random.default_rng(0))
    played = [scheduler.choose(number, np.zeros((1, 3), dtype=int))[0].nonzero()[0].tolist() for number in range(3)]
    assert played == [[0, 1], [0, 2], [1, 2]]


def test_a_rest_blind_bandit_finds_the_best_arm_where_rest_does_not_matter():
    bandit = RecoveringBandit(np.tile(np.array([0.2, 0.9, 0.4])[:, None], (8, 1, 2)))
    assert follow(bandit, RestBlind(), 2000, 0)[:, -200:].mean() > 0.85


def test_bounds_hold_and_become_monotone():
    bandit = RecoveringBandit.drawn(20, 3)
    seen = Confidence(bandit, 400)
    source = np.random.default_rng(1)
    for _ in range(400):
        states = source.integers(bandit.states, size=(20, bandit.arms))
        played = source.random((20, bandit.arms)) < 0.5
        seen.note(states, played, np.where(played, source.random(played.shape) < bandit.paid(states), 0.0))
    upper = seen.bounds()
    assert np.all(upper >= bandit.payoffs) and np.all(np.diff(upper, axis=-1) >= 0) and np.all(upper <= 1)
    assert np.all(np.diff(seen.means(), axis=-1) >= 0)
    untouched = Confidence(bandit, 400)
    assert np.all(untouched.bounds() == 1)


class _All(Scheduler):
    def start(self, bandit, rounds, generator):
        pass

    def choose(self, number, states):
        return np.ones(states.shape, dtype=bool)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: RecoveringBandit(np.array([[[0.5, 0.4]]])), "recovery: may not fall"),
        (lambda: RecoveringBandit(np.array([[[0.5, 1.4]]])), r"recovery: must be in \[0, 1\]"),
        (lambda: RecoveringBandit(np.array([[[0.5, np.nan]]])), r"recovery: must be in \[0, 1\]"),
        (lambda: RecoveringBandit(np.zeros((1, 2))), "at least one run, arm and state"),
        (lambda: RecoveringBandit(np.zeros((1, 1, 1)), slots=-1), "slots = -1"),
        (lambda: RecoveringBandit(np.zeros((1, 1, 1)), largest=0), "largest = 0"),
        (lambda: LastSwitchBandit(np.zeros((1, 1, 3)), tired=3), "tired = 3: must be from 1 to 2"),
        (lambda: follow(RecoveringBandit(np.zeros((1, 2, 1))), _All(), 1, 0), "_All: played 2 arms in a round of 1"),
        (lambda: follow(RecoveringBandit(np.zeros((1, 2, 1))), BestNow(), 0, 0), "rounds = 0"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
