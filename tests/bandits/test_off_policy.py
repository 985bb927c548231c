"""Off-policy estimators: exact expectations over all that could be logged, reductions, and what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stratagem.bandits import Evaluation, LinearBandit, SquareCB, play
from stratagem.errors import InputError


def test_inverse_propensity_is_unbiased_over_a_million_draws():
    source = np.random.default_rng(5)
    count = 1_000_000
    arms = (source.random(count) >= 0.9).astype(np.int64)
    rewards = (source.random(count) < np.where(arms == 0, 0.3, 0.7)).astype(float)
    propensity = np.where(arms == 0, 0.9, 0.1)
    found = Evaluation(arms, rewards, propensity, np.tile([0.0, 1.0], (count, 1))).inverse_propensity()
    assert abs(found - 0.7) < 3 * np.sqrt(0.7 * 10 - 0.49) / 1000


def _expected(estimate, propensity, means, target, predicted, clip=None, assumed=None):
    """The exact mean of an estimator over every log of two events that there can be."""
    total = 0.0
    for a, b, r, s in product(range(3), range(3), (0, 1), (0, 1)):
        chance = propensity[a] * propensity[b]
        chance *= (means[a] if r else 1 - means[a]) * (means[b] if s else 1 - means[b])
        said = (propensity if assumed is None else assumed)[[a, b]]
        evaluation = Evaluation(
            np.array([a, b]), np.array([r, s], float), said, np.tile(target, (2, 1)), np.tile(predicted, (2, 1)), clip
        )
        total += chance * float(estimate(evaluation))
    return total


PROPENSITY, MEANS = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.9])
TARGET, WRONG = np.array([0.1, 0.2, 0.7]), np.array([0.4, 0.1, 0.3])
VALUE = float(TARGET @ MEANS)


def test_which_estimators_are_unbiased_and_when():
    def mean(estimate, predicted=WRONG, **more):
        return _expected(estimate, PROPENSITY, MEANS, TARGET, predicted, **more)

    uniform = np.full(3, 1 / 3)
    assert mean(Evaluation.inverse_propensity) == pytest.approx(VALUE)
    assert mean(Evaluation.doubly_robust) == pytest.approx(VALUE)
    # Wrong propensities: only a right model helps.
    assert mean(Evaluation.doubly_robust, predicted=MEANS, assumed=uniform) == pytest.approx(VALUE)
    assert abs(mean(Evaluation.doubly_robust, assumed=uniform) - VALUE) > 0.01
    assert mean(Evaluation.direct) == pytest.approx(TARGET @ WRONG)
    assert abs(mean(Evaluation.self_normalized) - VALUE) > 0.01
    assert mean(Evaluation.inverse_propensity, clip=2.0) < VALUE - 0.1


def test_doubly_robust_varies_less_than_inverse_propensity_with_a_fair_model():
    played = play(LinearBandit(200, 3, arms=4), SquareCB(50), 100, seed=2, keep_log=True).log
    target = np.eye(4)[played.means.argmax(-1)] * 0.9 + 0.025
    evaluation = Evaluation(played.arms, played.rewards, played.propensity, target, played.means)
    truth = (target * played.means).sum(-1).mean(-1)
    errors = {name: getattr(evaluation, name)() - truth for name in ("inverse_propensity", "doubly_robust")}
    assert np.square(errors["doubly_robust"]).mean() < np.square(errors["inverse_propensity"]).mean()
    for error in errors.values():
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(200)


def test_switch_goes_from_the_model_to_doubly_robust():
    evaluation = _small()
    assert evaluation.switch(0) == pytest.approx(evaluation.direct())
    assert evaluation.switch(1e9) == pytest.approx(evaluation.doubly_robust())
    assert evaluation.switch(1.0) not in (evaluation.switch(0), evaluation.switch(1e9))


def test_without_a_model_doubly_robust_is_inverse_propensity():
    evaluation = _small(predicted=np.zeros((3, 2)))
    assert evaluation.doubly_robust() == pytest.approx(evaluation.inverse_propensity())


def test_on_its_own_log_a_policy_is_worth_its_mean_reward():
    evaluation = Evaluation(np.array([0, 1, 1]), np.array([1.0, 0, 1]), np.array([0.5, 0.5, 0.5]), np.full((3, 2), 0.5))
    assert evaluation.inverse_propensity() == evaluation.self_normalized() == pytest.approx(2 / 3)
    assert evaluation.effective_size() == 3


def test_numbers_worked_by_hand():
    evaluation = _small()
    # Weights 0.25 / 0.5, 0.75 / 0.5, 0.75 / 0.25.
    np.testing.assert_allclose(evaluation.weights, [0.5, 1.5, 3.0])
    assert evaluation.inverse_propensity() == pytest.approx(3.5 / 3)
    assert evaluation.self_normalized() == pytest.approx(0.7)
    assert evaluation.effective_size() == pytest.approx(25 / 11.5)


def test_a_target_that_was_never_logged_is_worth_nothing_that_is_known():
    evaluation = Evaluation(np.array([0]), np.array([1.0]), np.array([1.0]), np.array([[0.0, 1.0]]))
    assert evaluation.self_normalized() == evaluation.effective_size() == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.25])}, "propensity"),
        ({"propensity": np.array([0.5, np.nan, 0.25])}, "propensity"),
        ({"target": np.full((3, 2), 0.4)}, "target"),
        ({"clip": 0}, "clip = 0"),
    ],
)
def test_wrong_input_is_refused(change, expected):
    with pytest.raises(InputError, match=expected):
        _small(**change)
    with pytest.raises(InputError, match="needs mean rewards by a model"):
        _small(predicted=None).direct()
    with pytest.raises(InputError, match="largest = -1"):
        _small().switch(-1)


def _small(**change):
    given = {
        "arms": np.array([0, 1, 1]),
        "rewards": np.array([1.0, 0.0, 1.0]),
        "propensity": np.array([0.5, 0.5, 0.25]),
        "target": np.tile([0.25, 0.75], (3, 1)),
        "predicted": np.tile([0.3, 0.6], (3, 1)),
    }
    return Evaluation(**{**given, **change})
