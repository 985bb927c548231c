"""Coupled arms: transitions, exact values against simulation and a worked example, and wrong input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.bandits import (
    CoupledBandit,
    Interventions,
    LinearConstraints,
    MyopicBest,
    OneByOne,
    Pulls,
    RandomFeasible,
    Sigmoids,
    drawn_problem,
)
from stratagem.errors import InputError

KINDS = ["interventions", "walk", "slots", "capacities"]


def trap():
    """Two arms that do as they are told: arm 0 pays 10 after two pulls, arm 1 a little at once."""
    rewards = np.array([[0.2, 0.1, 10.0], [0.1, 0.2, 1.0]])
    at_most_one = LinearConstraints([[1, 1]], [0], [1])
    return CoupledBandit(rewards, Pulls(np.zeros(2), np.ones(2)), at_most_one)


def test_the_sigmoid_needs_all_three_entries():
    effect = Sigmoids(np.full((1, 3), 3.0), np.ones(1), np.full(1, 1.5), np.full(1, 9.0))
    found = effect(np.tri(4, 3, -1, dtype=bool))[:, 0]
    np.testing.assert_allclose(found, [0.01, 0.02065, 0.49988, 0.97911], atol=1e-5)


def test_looking_one_step_ahead_falls_into_the_trap_and_the_optimum_does_not():
    bandit = trap()
    here = np.zeros((1, 2), dtype=np.int64)
    np.testing.assert_allclose(bandit.expected(here, np.eye(2, dtype=bool)), [[0.2, 0.4]])
    assert MyopicBest(bandit).choose(here).tolist() == [[False, True]]
    # Pulled twice and held, arm 0 pays 0.1 and then 10 a round; arm 1 pays 0.1 each.
    assert bandit.best_values(5)[0] == pytest.approx(0.2 + 4 * 10.1)
    # Myopic: 0.4, then 1.2 a round, for arm 1 stays at the top.
    assert bandit.values_of(MyopicBest(bandit), 5)[0] == pytest.approx(0.4 + 4 * 1.2)
    assert bandit.best_values(2, discount=0.5)[0] == pytest.approx(0.2 + 0.5 * 10.1)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_values_are_the_mean_of_simulated_episodes(seed, kind):
    bandit = drawn_problem(kind, seed, arms=3)
    policy, source = MyopicBest(bandit), np.random.default_rng(seed)
    joint = bandit.every_state()
    lookup = policy.choose(joint)
    totals = []
    for _ in range(300):
        state, total = bandit.start(source), 0.0
        for _ in range(4):
            place = int(state @ 4 ** np.arange(3)[::-1])
            assert joint[place].tolist() == state.tolist()
            state = bandit.step(state, lookup[place], source)
            total += float(bandit.rewards[np.arange(3), state].sum())
        totals.append(total)
    exact = bandit.from_start(bandit.values_of(policy, 4))
    assert abs(np.mean(totals) - exact) < 5 * np.std(totals) / np.sqrt(300) + 1e-9


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(KINDS))
def test_no_policy_beats_the_best_values(seed, kind):
    bandit = drawn_problem(kind, seed, arms=3)
    best = bandit.best_values(5)
    for policy in (MyopicBest(bandit), RandomFeasible(bandit, np.random.default_rng(0)), OneByOne.myopic(bandit)):
        assert np.all(bandit.values_of(policy, 5) <= best + 1e-9)
    np.testing.assert_allclose(bandit.best_values(1), bandit.values_of(MyopicBest(bandit), 1))


@pytest.mark.parametrize("kind", KINDS)
def test_actions_built_one_by_one_are_feasible_and_no_better_for_the_next_step_than_the_best(kind):
    bandit = drawn_problem(kind, 5)
    states = bandit.every_state()[::37]
    every = bandit.feasible.every
    actions = OneByOne.myopic(bandit).choose(states)
    assert bandit.feasible.contains(actions).all()
    reached = np.take_along_axis(
        bandit.expected(states, every), (actions[:, None] == every).all(-1).argmax(-1)[:, None], 1
    )[:, 0]
    assert np.all(reached <= bandit.expected(states, every).max(-1) + 1e-12)


def test_one_by_one_is_the_best_where_only_a_number_of_arms_is_chosen():
    source = np.random.default_rng(0)
    effect = Pulls(np.full(5, 0.1), np.full(5, 0.8))
    bandit = CoupledBandit(source.standard_normal((5, 3)), effect, Interventions(5, 2))
    states = bandit.every_state()
    np.testing.assert_array_equal(OneByOne.myopic(bandit).choose(states), MyopicBest(bandit).choose(states))


def test_random_feasible_actions_are_drawn_as_they_are_counted():
    bandit = drawn_problem("slots", 3)
    policy = RandomFeasible(bandit, np.random.default_rng(0))
    states = np.zeros((4000, 6), dtype=np.int64)
    drawn = (policy.choose(states)[:, None] == bandit.feasible.every).all(-1).mean(0)
    np.testing.assert_allclose(drawn, policy.shares(states[:1])[0], atol=0.04)


def test_valuable_arms_first_lose_by_moving_up():
    for kind in KINDS:
        rewards = drawn_problem(kind, 1).rewards
        valuable = rewards[:, 3] >= 4
        assert valuable.sum() == (3 if kind == "interventions" else 2)
        assert np.all((np.diff(rewards[:, :3]) < 0) == valuable[:, None])


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: drawn_problem("tube", 0), "unknown kind 'tube'"),
        (lambda: drawn_problem("walk", 0, arms=0), "arms = 0, budget = 2"),
        (lambda: drawn_problem("interventions", 0, arms=4), "a multiple of 3"),
        (lambda: drawn_problem("walk", 0, arms=8).every_state(), "65,536 joint states: more than 20,000"),
        (lambda: CoupledBandit(np.ones((3, 2)), Pulls(np.zeros(2), np.ones(2)), Interventions(2, 1)), "on 2 arms"),
        (lambda: CoupledBandit(np.array([[np.nan]]), Pulls(np.zeros(1), np.ones(1)), Interventions(1, 1)), "finite"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
