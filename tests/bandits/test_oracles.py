"""Online oracles: ridge against its closed form, aggregation against its bound on any sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stratagem.bandits import Aggregated, Ridge
from stratagem.errors import InputError


def test_online_ridge_is_ridge_regression():
    source = np.random.default_rng(3)
    x, r = source.standard_normal((2, 30, 4)), source.random((2, 30))
    oracle = Ridge(0.7)
    oracle.start(2, 4)
    for moment in range(30):
        oracle.learn(x[:, moment], r[:, moment])
    for run in range(2):
        gram = x[run].T @ x[run] + 0.7 * np.eye(4)
        np.testing.assert_allclose(oracle.weights[run], np.linalg.solve(gram, x[run].T @ r[run]))
        np.testing.assert_allclose(oracle.inverse[run], np.linalg.inv(gram), atol=1e-12)
    asked = source.standard_normal((2, 3, 4))
    widths = np.sqrt(np.einsum("raf,rfg,rag->ra", asked, oracle.inverse, asked))
    np.testing.assert_allclose(oracle.widths(asked), widths)


def _sequences(binary):
    rewards = st.integers(0, 1).map(float) if binary else st.floats(0, 1)
    return st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
        lambda shape: st.tuples(
            arrays(np.float64, (*shape, 1), elements=st.floats(0.01, 0.99)),
            arrays(np.float64, shape[0], elements=rewards),
        )
    )


@given(_sequences(binary=False))
def test_squared_loss_exceeds_that_of_the_best_function_by_half_a_logarithm_at_most(drawn):
    functions, rewards = drawn
    oracle, lost = _follow(Aggregated("squared"), functions, rewards, lambda f, r: (f - r) ** 2)
    best = ((functions[..., 0] - rewards[:, None]) ** 2).sum(0).min()
    assert lost - best <= oracle.bound + 1e-9


@given(_sequences(binary=True))
def test_log_loss_exceeds_that_of_the_best_function_by_a_logarithm_at_most(drawn):
    functions, rewards = drawn
    oracle, lost = _follow(Aggregated("log"), functions, rewards, _log_loss)
    best = _log_loss(functions[..., 0], rewards[:, None]).sum(0).min()
    assert lost - best <= oracle.bound + 1e-9


def test_the_right_function_wins():
    oracle = Aggregated("log")
    oracle.start(1, 3)
    for reward in (1.0, 1.0, 0.0, 1.0) * 25:
        oracle.learn(np.array([[0.2, 0.75, 0.5]]), np.array([reward]))
    assert oracle.weights[0].argmax() == 1 and oracle.weights[0, 1] > 0.99


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="strength=0"):
        Ridge(0)
    with pytest.raises(InputError, match="loss='absolute'"):
        Aggregated("absolute")


def _follow(oracle, functions, rewards, loss):
    oracle.start(1, functions.shape[1])
    lost = 0.0
    for said, reward in zip(functions[..., 0], rewards, strict=True):
        predicted = oracle.predict(said[None, None])[0, 0]
        lost += float(loss(predicted, reward))
        oracle.learn(said[None], np.array([reward]))
    return oracle, lost


def _log_loss(said, reward):
    return -(reward * np.log(said) + (1 - reward) * np.log1p(-said))
