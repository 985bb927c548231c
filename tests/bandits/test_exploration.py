"""From predictions to probabilities: numbers worked by hand, inequalities, limits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.bandits import Greedy, InverseGap, ReweightedCosts, floored
from stratagem.bandits.exploration import draw
from stratagem.errors import InputError

MEANS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(0, 1))
GAMMAS = st.floats(0.01, 1e6)
EXPLORATIONS = (Greedy(), InverseGap(10), InverseGap(np.inf), ReweightedCosts(10), ReweightedCosts(0))


def test_inverse_gaps_worked_by_hand():
    found = InverseGap(10)(np.array([0.9, 0.8, 0.5]))
    np.testing.assert_allclose(found, [0.607143, 0.25, 0.142857], atol=1e-6)


def test_reweighted_costs_worked_by_hand():
    found = ReweightedCosts(10)(np.array([0.9, 0.8, 0.5]))
    np.testing.assert_allclose(found, [0.899821, 0.076923, 0.023256], atol=1e-6)


def test_inverse_gaps_without_a_gamma_are_uniform_and_with_an_endless_one_greedy():
    means = np.array([0.9, 0.8, 0.5])
    np.testing.assert_allclose(InverseGap(0)(means), 1 / 3)
    np.testing.assert_array_equal(InverseGap(np.inf)(means), Greedy()(means))
    np.testing.assert_allclose(InverseGap(1e9)(means), [1, 0, 0], atol=1e-7)


def test_arms_that_tie_keep_their_share_and_the_first_gets_the_rest():
    np.testing.assert_allclose(InverseGap(np.inf)(np.array([0.2, 0.7, 0.7])), [0, 2 / 3, 1 / 3])


def test_reweighted_costs_do_not_explore_where_the_best_arm_costs_nothing():
    np.testing.assert_array_equal(ReweightedCosts(10)(np.array([0.5, 1.0, 1.0])), [0, 1, 0])


def test_a_larger_mu_explores_less():
    means = np.array([0.9, 0.8, 0.5])
    assert InverseGap(10, mu=9)(means)[0] > InverseGap(10)(means)[0]


@pytest.mark.parametrize("exploration", EXPLORATIONS, ids=repr)
@given(data=st.data())
def test_every_exploration_is_a_distribution_over_feasible_arms(exploration, data):
    means = data.draw(MEANS)
    feasible = data.draw(arrays(np.bool_, means.shape))
    feasible[:, 0] |= ~feasible.any(-1)
    means = np.where(feasible, means, np.nan)
    found = exploration(means, feasible)
    assert np.all(found[~feasible] == 0) and np.all(found >= 0)
    np.testing.assert_allclose(found.sum(-1), 1)


@given(predicted=MEANS, gamma=GAMMAS, data=st.data())
def test_what_inverse_gaps_lose_is_bounded_by_what_the_predictions_missed(predicted, gamma, data):
    """Lemma 3 of arXiv 2002.04926, whatever the true means."""
    true = data.draw(arrays(np.float64, predicted.shape, elements=st.floats(0, 1)))
    found = InverseGap(gamma)(predicted)
    lost = (found * (true.max(-1, keepdims=True) - true)).sum(-1)
    missed = (found * (predicted - true) ** 2).sum(-1)
    assert np.all(lost <= 2 * predicted.shape[-1] / gamma + gamma / 4 * missed + 1e-9)


@given(predicted=MEANS, gamma=GAMMAS)
def test_the_predicted_loss_of_inverse_gaps_is_at_most_the_others_over_gamma(predicted, gamma):
    found = InverseGap(gamma)(predicted)
    gap = predicted.max(-1, keepdims=True) - predicted
    assert np.all((found * gap).sum(-1) <= (predicted.shape[-1] - 1) / gamma + 1e-12)


@given(predicted=MEANS, gamma=GAMMAS)
def test_the_best_arm_keeps_at_least_its_uniform_share(predicted, gamma):
    best = predicted.argmax(-1)[:, None]
    for exploration in (InverseGap(gamma), ReweightedCosts(gamma)):
        share = np.take_along_axis(exploration(predicted), best, -1)
        assert np.all(share >= 1 / predicted.shape[-1] - 1e-12)


def test_one_arm_is_certain():
    for exploration in EXPLORATIONS:
        np.testing.assert_array_equal(exploration(np.array([[0.3]])), [[1.0]])


def test_a_floor_gives_every_feasible_arm_support():
    feasible = np.array([True, True, False, True])
    found = floored(np.array([1.0, 0, 0, 0]), 0.3, feasible)
    np.testing.assert_allclose(found, [0.8, 0.1, 0, 0.1])


def test_a_draw_follows_the_distribution_and_never_picks_what_has_none():
    probabilities = np.tile([0.0, 0.25, 0.0, 0.75, 0.0], (4000, 1))
    arms = draw(probabilities, np.arange(4000) / 4000)
    np.testing.assert_array_equal(np.bincount(arms, minlength=5), [0, 1000, 0, 3000, 0])
    assert draw(np.array([[0.5, 0.5, 0.0]]), np.array([1 - 1e-16]))[0] == 1


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: InverseGap(-1), "gamma=-1 is not allowed"),
        (lambda: ReweightedCosts(-1), "gamma=-1 is not allowed"),
        (lambda: InverseGap(1, mu=2)(np.zeros(3)), "mu = 2.0 is below the number of feasible arms, 3"),
        (lambda: InverseGap(1)(np.array([0.1, np.nan])), "predicted rewards: must be finite"),
        (lambda: ReweightedCosts(1)(np.array([0.1, 1.2])), r"must be in \[0, 1\]"),
        (lambda: InverseGap(1)(np.zeros(2), np.zeros(2, dtype=bool)), "at least one in every round"),
        (lambda: floored(np.ones(1), 1.5), "epsilon = 1.5"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
