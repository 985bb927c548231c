"""Policies in generations: what is logged and fitted, delayed outcomes, degenerate logs, controls without a swing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stratagem.bandits import BatchedDeployment, EachRun, Greedy, InverseGap, LogisticRegression, Payments
from stratagem.bandits.generations import resolved
from stratagem.catalogue import card
from stratagem.errors import InputError

WORLD = Payments().draw(4, 7)


class Kept(LogisticRegression):
    """Keeps what it was fitted to."""

    def start(self, runs, features):
        super().start(runs, features)
        self.seen = []

    def fit(self, features, successes, weights):
        self.seen.append((features, successes, weights))
        super().fit(features, successes, weights)


def _run(world=WORLD, generations=4, events=300, seed=1, **settings):
    regressor = settings.pop("regressor", None) or Kept()
    deployment = BatchedDeployment(**{"exploration": InverseGap(100), "regressor": regressor, **settings})
    found = deployment.run(world, generations, events, seed)
    return found, getattr(regressor, "seen", [])


def test_it_is_in_the_catalogue():
    assert card("regression_oracle_cb").build is BatchedDeployment
    assert card("regression_oracle_cb").arxiv == "2412.00569"


# ---- the world and the model ----------------------------------------------------------------------------------------


def test_chances_are_those_of_the_model_with_interactions():
    """The design with interactions, times the weights, is the log-odds exactly."""
    world = Payments(interactions=True).draw(2, 3)
    contexts, feasible = world.contexts(5, np.random.default_rng(0))
    arms = np.array([[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]])
    weights = np.concatenate(
        [np.full((2, 1), world.payments.base), world.common, world.offsets, world.special.reshape(2, -1)], -1
    )
    odds = (world.design(contexts, arms) @ weights[..., None])[..., 0]
    chances = np.take_along_axis(world.chances(contexts), arms[..., None], -1)[..., 0]
    np.testing.assert_allclose(chances, 1 / (1 + np.exp(-odds)))
    assert world.design(contexts, arms).shape[-1] == world.features
    assert feasible.any(-1).all()


def test_the_regression_is_at_the_minimum_of_its_loss():
    source = np.random.default_rng(1)
    x = np.concatenate([source.standard_normal((3, 200, 4)), np.ones((3, 200, 1))], -1)
    y, w = (source.random((3, 200)) < 0.8).astype(float), source.uniform(0.5, 3, (3, 200))
    model = LogisticRegression(ridge=0.5)
    model.start(3, 5)
    model.fit(x, y, w)
    slope = np.einsum("ref,re->rf", x, w * (model.predict(x) - y)) + 0.5 * model.weights
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_a_log_without_failures_leaves_the_model_as_it_was():
    model = LogisticRegression()
    model.start(2, 1)
    ones, mixed = np.ones((2, 6)), np.array([[1, 1, 0, 1, 1, 1.0], [1, 1, 1, 1, 1, 1.0]])
    model.fit(np.ones((2, 6, 1)), mixed, ones)
    first = model.weights.copy()
    assert first[0, 0] > 0.3 and first[1, 0] == 0
    model.fit(np.ones((2, 6, 1)), ones, ones)
    np.testing.assert_array_equal(model.weights, first)
    model.fit(np.ones((2, 6, 1)), mixed[::-1], np.zeros((2, 6)))
    np.testing.assert_array_equal(model.weights, first)


def test_separable_events_do_not_break_the_regression():
    model = LogisticRegression(ridge=1e-3, steps=50)
    model.start(1, 2)
    x = np.stack([np.linspace(-5, 5, 40), np.ones(40)], -1)[None]
    model.fit(x, (x[..., 0] > 0).astype(float), np.ones((1, 40)))
    assert np.isfinite(model.weights).all() and np.all((model.predict(x) > 0.5) == (x[..., 0] > 0))


def test_any_classifier_can_take_its_place_and_that_of_scikit_learn_finds_the_same():
    linear = pytest.importorskip("sklearn.linear_model")
    theirs = EachRun(lambda: linear.LogisticRegression(fit_intercept=False, C=1.0, tol=1e-10, max_iter=1000))
    one, other = (_run(regressor=regressor, weighting="inverse")[0] for regressor in (theirs, LogisticRegression()))
    np.testing.assert_allclose(one.success, other.success, atol=1e-5)
    theirs.start(1, 2)
    np.testing.assert_array_equal(theirs.predict(np.zeros((1, 3, 2))), 0.5)


# ---- what is logged and fitted --------------------------------------------------------------------------------------


def test_the_first_generation_is_uniform_and_regret_is_against_the_best_open_route():
    found, _ = _run(generations=2, events=4000)
    contexts, feasible = WORLD.contexts(4000, np.random.default_rng(9))
    chances = WORLD.chances(contexts)
    mean = np.where(feasible, chances, 0).sum(-1) / feasible.sum(-1)
    np.testing.assert_allclose(found.success[:, 0], mean.mean(-1), atol=0.02)
    np.testing.assert_allclose(found.regret, found.best - found.success)
    assert np.all(found.regret >= 0) and np.isnan(found.calibration[:, 0]).all()
    np.testing.assert_allclose(found.realised, found.success, atol=0.03)


def test_the_window_says_how_many_logs_a_fit_sees():
    for window, sizes in ((1, [300, 300, 300]), (2, [300, 600, 600]), (None, [300, 600, 900])):
        _, seen = _run(window=window)
        assert [successes.shape[1] for _, successes, _ in seen] == sizes


def test_outcomes_that_are_not_known_are_left_out_and_come_in_later():
    lag = np.array([[0, 3, 1, 0], [9, 0, 0, 5]])
    np.testing.assert_array_equal(resolved(lag, 0), [[True, False, True, True], [False, True, True, False]])
    np.testing.assert_array_equal(resolved(lag, 1), [[True, True, True, True], [False, True, True, False]])
    found, seen = _run(mean_lag=100.0, window=2, generations=3)
    first, second = (weights for _, _, weights in seen)
    np.testing.assert_allclose(1 - first.mean(-1), found.unresolved[:, 0])
    assert 0.15 < found.unresolved.mean() < 0.5
    # The same batch one generation later: most of what was open has come.
    assert second[:, :300].sum() > first.sum() and np.all(second[:, :300] >= first)


def test_delay_slows_what_is_learned():
    at_once = _run(events=120, generations=3)[0]
    late = _run(events=120, generations=3, mean_lag=400.0)[0]
    assert late.unresolved.mean() > 0.7 and at_once.unresolved.max() == 0
    assert late.log_loss[:, 1].mean() > at_once.log_loss[:, 1].mean()


def test_inverse_weights_are_the_propensities_with_the_floor_cut_at_the_clip():
    _, seen = _run(weighting="inverse", clip=20.0, floor=0.05, generations=3)
    _, _, weights = seen[1]
    assert weights.max() == 20.0 and weights.min() >= 1
    assert np.all(seen[0][2] <= 6)


def test_balanced_classes_weigh_the_same():
    _, seen = _run(weighting="balanced")
    for _, successes, weights in seen:
        np.testing.assert_allclose((weights * successes).sum(-1), (weights * (1 - successes)).sum(-1))


def test_the_uniform_slice_is_as_large_as_the_floor_and_uniform():
    _, seen = _run(
        weighting="uniform_slice", floor=0.3, generations=2, events=4000, world=Payments(open_share=1).draw(4, 7)
    )
    assert abs(seen[0][2].mean() - 0.3) < 0.02
    _, seen = _run(
        weighting="uniform_slice",
        exploration=Greedy(),
        floor=0.3,
        generations=3,
        events=4000,
        world=Payments(open_share=1).draw(4, 7),
    )
    features, _, weights = seen[1]
    assert abs(weights.mean() - 0.3) < 0.02
    routes = features[..., 11:17][weights > 0].mean(0)
    np.testing.assert_allclose(routes, 1 / 6, atol=0.02)


def test_uniform_logs_are_uniform_while_the_policy_is_scored():
    found, seen = _run(logs="uniform", generations=3, events=3000, world=Payments(open_share=1).draw(4, 7))
    np.testing.assert_allclose(seen[1][0][..., 11:17].mean((0, 1)), 1 / 6, atol=0.02)
    assert np.all(found.success[:, 1] > found.success[:, 0])
    np.testing.assert_allclose(found.effective_share, 1)


# ---- what becomes of it ---------------------------------------------------------------------------------------------


def test_a_right_model_with_all_logs_does_not_get_worse():
    world = Payments(interaction=0.0, arm_deviation=1.0).draw(4, 7)
    found, _ = _run(world, generations=8, events=1500, window=None)
    assert np.all(found.regret[:, -1] <= found.regret[:, 1] + 0.003)
    assert found.amplitude().mean() < 0.005


def test_more_gamma_explores_less_and_an_endless_one_is_greedy():
    explored = [
        _run(exploration=exploration)[0].explored[:, 1].mean()
        for exploration in (InverseGap(0), InverseGap(100), InverseGap(10_000), InverseGap(np.inf), Greedy())
    ]
    assert explored == sorted(explored, reverse=True) and explored[-1] == explored[-2] == 0


def test_a_swing_worked_by_hand():
    found, _ = _run(generations=7, events=10)
    levels = np.array([[0, 0, 0.1, 0.3, 0.1, 0.3, 0.1]])
    swinging = replace(found, best=levels, success=np.zeros_like(levels))
    # Changes .2, -.2, .2, -.2: products -.04 three times, squares .04 three times each.
    np.testing.assert_allclose(swinging.swing(), [-1])
    np.testing.assert_allclose(swinging.amplitude(), [0.2])
    still = replace(found, best=np.ones((1, 7)), success=np.ones((1, 7)))
    assert still.swing()[0] == still.amplitude()[0] == 0


def test_a_seed_decides_everything():
    np.testing.assert_array_equal(_run()[0].success, _run()[0].success)
    assert np.any(_run()[0].success != _run(seed=2)[0].success)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda: BatchedDeployment(window=0), "window = 0"),
        (lambda: BatchedDeployment(weighting="propensity"), "weighting = 'propensity'"),
        (lambda: BatchedDeployment(clip=0.5), "clip = 0.5"),
        (lambda: BatchedDeployment(floor=-1), "floor = -1"),
        (lambda: BatchedDeployment(mean_lag=-1), "mean_lag = -1"),
        (lambda: BatchedDeployment(logs="all"), "logs = 'all'"),
        (lambda: BatchedDeployment(weighting="uniform_slice"), "needs a floor"),
        (lambda: BatchedDeployment().run(WORLD, 1, 10, 0), "generations = 1"),
        (lambda: Payments(open_share=0), "open_share=0"),
        (lambda: Payments().draw(0, 0), "runs = 0"),
        (lambda: LogisticRegression(ridge=0), "ridge=0"),
    ],
)
def test_wrong_input_is_refused_in_one_line(ask, expected):
    with pytest.raises(InputError, match=expected):
        ask()
