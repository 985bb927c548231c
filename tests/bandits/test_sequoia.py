"""Q-learning with combinatorial actions: the trap of one step, memory of minima, repeatability."""

from __future__ import annotations

import numpy as np
import pytest

from stratagem.bandits import (
    Counted,
    CoupledBandit,
    LinearConstraints,
    MixedInteger,
    MyopicBest,
    OneByOne,
    Pulls,
    Sequoia,
    drawn_problem,
)
from stratagem.errors import InputError

TINY = Sequoia(hidden=(4,), episodes=2, horizon=3, states_per_step=2, first_epochs=2, prefilled=20, batch=8)


def _trap():
    rewards = np.array([[0.2, 0.1, 10.0], [0.1, 0.2, 1.0]])
    return CoupledBandit(rewards, Pulls(np.zeros(2), np.ones(2)), LinearConstraints([[1, 1]], [0], [1]))


class _Listening:
    """Counts, and notes which states the minimum is asked for."""

    def __init__(self):
        self.asked = []

    def least(self, network, states, feasible):
        self.asked.append(states)
        return Counted().least(network, states, feasible)


def test_it_pulls_the_arm_that_pays_later_where_looking_one_step_ahead_does_not():
    bandit = _trap()
    learner = Sequoia(
        hidden=(16,), episodes=20, horizon=5, states_per_step=10, polyak=0.1, learning_rate=5e-3, decay=1.0, updates=3,
        first_epochs=40, first_learning_rate=1e-2, first_batch=256, epsilon_rate=100, kept=1, top_arms=1,
    )  # fmt: skip
    learned = learner.fit(bandit, 1000, Counted())
    start = np.zeros((1, 2), dtype=np.int64)
    assert MyopicBest(bandit).choose(start).tolist() == [[False, True]]
    assert learned.choose(start).tolist() == [[True, False]]
    assert bandit.values_of(learned, 5)[0] == pytest.approx(bandit.best_values(5)[0])
    # The first fit knows of one step only.
    assert np.any(learned.first.weights[0] != learned.network.weights[0])


def test_it_trains_and_acts_with_the_program():
    bandit, solver = _trap(), MixedInteger()
    learned = TINY.fit(bandit, 1, solver)
    states = bandit.every_state()
    solved = solver.solved
    assert 0 < solved <= 60 and bandit.feasible.contains(learned.choose(states)).all()
    assert solver.solved == solved + len(states) and solver.fallbacks == 0
    asked = states.astype(float)
    _, counted = Counted().least(learned.network, asked, bandit.feasible)
    np.testing.assert_allclose(learned.network.pairs(asked, learned.choose(states)), counted, atol=1e-6)


def test_the_program_is_the_default():
    assert isinstance(TINY.fit(_trap(), 1).minimizer, MixedInteger)


def _asked_for_targets(kept):
    """How often the minimum was asked for each next state: greedy actions are never asked for here."""
    listening = _Listening()
    how = Sequoia(
        hidden=(4,), episodes=6, horizon=3, states_per_step=1, first_epochs=0, prefilled=0, kept=kept, epsilon_first=1,
        epsilon_last=1, batch=4, top_arms=1,
    )  # fmt: skip
    how.fit(_trap(), 3, listening)
    return np.unique(np.concatenate(listening.asked), axis=0, return_counts=True)[1]


def test_a_next_state_is_solved_once_as_long_as_it_is_remembered():
    assert _asked_for_targets(6).max() == 1
    assert _asked_for_targets(3).max() == 2
    assert 2 < _asked_for_targets(1).max() <= 6


def test_one_seed_learns_one_network_and_another_another():
    bandit = drawn_problem("slots", 1)
    first, again, other = (TINY.fit(bandit, seed, Counted()).network for seed in (5, 5, 6))
    for left, right in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(left, right)
    assert np.any(first.weights[0] != other.weights[0])


def test_updates_toward_a_fixed_target_lower_the_loss():
    learned = Sequoia(
        hidden=(8,), episodes=25, horizon=4, states_per_step=10, polyak=0, discount=0.5,
        learning_rate=0.02, decay=0.98, updates=2, first_epochs=10, first_learning_rate=1e-2, first_batch=64,
        kept=25, top_arms=1, alpha=0, prefilled=400,
    ).fit(_trap(), 1001, Counted())  # fmt: skip
    assert len(learned.losses) == 25 * 4 * 2
    assert np.mean(learned.losses[-30:]) < 0.5 * np.mean(learned.losses[:30])


def test_one_by_one_on_the_network_is_never_better_for_the_network_than_the_minimum():
    bandit = drawn_problem("capacities", 2)
    learned = TINY.fit(bandit, 1, Counted())
    states = bandit.every_state()[::29]
    built = OneByOne.by_network(learned).choose(states)
    assert bandit.feasible.contains(built).all()
    asked = states.astype(float)
    least = learned.network.pairs(asked, learned.choose(states))
    assert np.all(learned.network.pairs(asked, built) >= least - 1e-9)


def test_no_feasible_action_is_said_in_one_line():
    bandit = CoupledBandit(np.ones((2, 2)), Pulls(np.zeros(2), np.ones(2)), LinearConstraints([[1, 1]], [3], [3]))
    with pytest.raises(InputError, match="LinearConstraints: no action fulfils the constraints"):
        TINY.fit(bandit, 0)


@pytest.mark.parametrize(
    ("field_name", "value"), [("hidden", (0,)), ("episodes", 0), ("discount", 1.1), ("polyak", -1), ("batch", 0)]
)
def test_values_out_of_range_are_refused(field_name, value):
    with pytest.raises(InputError, match=f"sequoia: {field_name}="):
        Sequoia(**{field_name: value})
