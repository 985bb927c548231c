"""Risk aversion: covariances, the quadratic program, equilibria worked by hand, and the return to train with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.games import (
    BestResponse,
    Metagame,
    RiskAverse,
    RiskAverseResponse,
    Round,
    covariance,
    matrix_game,
    quadratic_on_simplex,
    risk_averse_returns,
)

STAG_HUNT = np.array([[4.0, 1.0], [3.0, 3.0]])
"""Stag, hare."""


def stag_hunt(scale: float = 1.0) -> Metagame:
    return Metagame.of_matrices(scale * STAG_HUNT, scale * STAG_HUNT.T)


seeds = st.integers(0, 10**6)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_the_quadratic_form_is_the_variance_over_the_others_choices(seed):
    draw = np.random.default_rng(seed)
    payoffs = draw.standard_normal((3, 4))
    x, y = draw.dirichlet(np.ones(3)), draw.dirichlet(np.ones(4))
    earned = x @ payoffs
    variance = np.average((earned - earned @ y) ** 2, weights=y)
    found = covariance(Metagame.of_matrices(payoffs), 0, [x, y])
    assert x @ found @ x == pytest.approx(variance, abs=1e-12)
    assert np.linalg.eigvalsh(found).min() > -1e-12


def test_with_three_players_the_others_choose_independently():
    draw = np.random.default_rng(1)
    game = Metagame(draw.standard_normal((1, 3, 2, 3, 4)))
    x, y, z = (draw.dirichlet(np.ones(size)) for size in game.sizes)
    earned = np.einsum("abc,b->ac", game.expected[1], y)
    weights = np.outer(x, z)
    variance = (weights * (earned - (weights * earned).sum()) ** 2).sum()
    assert y @ covariance(game, 1, [x, y, z]) @ y == pytest.approx(variance, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 8), st.integers(1, 8), st.floats(0.0, 10.0))
def test_no_mixture_is_better_than_the_programs(seed, size, rank, weight):
    """The first-order condition, which is sufficient for a concave problem."""
    draw = np.random.default_rng(seed)
    factors = draw.standard_normal((size, rank))
    linear, quadratic = draw.standard_normal(size), weight * factors @ factors.T
    x = quadratic_on_simplex(linear, quadratic)
    slope = linear - 2 * quadratic @ x
    assert (x >= 0).all() and x.sum() == pytest.approx(1.0)
    assert slope.max() - x @ slope < 1e-5


def test_of_equal_mixtures_the_most_even_is_taken():
    assert quadratic_on_simplex(np.array([1.0, 1.0, 0.0]), np.zeros((3, 3))) == pytest.approx([0.5, 0.5, 0.0])
    assert quadratic_on_simplex(np.zeros(4), np.zeros((4, 4))) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("aversion", [0.01, 1.0, 50.0])
def test_opposite_risks_are_hedged(aversion):
    game = Metagame.of_matrices(2 * np.eye(2))
    even = [np.array([0.5, 0.5])] * 2
    assert np.allclose(covariance(game, 0, even), [[1, -1], [-1, 1]])
    assert RiskAverse(aversion, 0.0).response(game, 0, even) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("q", [0.1, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("aversion", [0.5, 1.0, 3.0])
def test_the_best_reply_of_the_stag_hunt_by_hand(q, aversion):
    game, other = stag_hunt(), np.array([q, 1 - q])
    found = covariance(game, 0, [other, other])
    assert np.allclose(found, [[9 * q * (1 - q), 0], [0, 0]])
    stag = np.clip((3 * q - 2) / (18 * aversion * q * (1 - q)), 0, 1)
    assert RiskAverse(aversion, 0.0).response(game, 0, [other, other])[0] == pytest.approx(stag, abs=1e-6)


@pytest.mark.parametrize("start", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_with_trembles_replies_end_at_the_risk_dominant_equilibrium(start):
    game, solver, q = stag_hunt(), RiskAverse(1.0, 0.2), start
    for _ in range(50):
        q = float(solver.response(game, 0, [np.array([q, 1 - q])] * 2)[0])
    assert q == pytest.approx(0.0, abs=1e-6)


def test_without_aversion_or_without_trembles_the_risky_equilibrium_stays_one():
    game, stag = stag_hunt(), np.array([1.0, 0.0])
    assert RiskAverse(0.0, 0.2).response(game, 0, [np.array([0.9, 0.1])] * 2)[0] == pytest.approx(1.0)
    for aversion in (0.1, 1.0, 100.0):
        assert RiskAverse(aversion, 0.0).response(game, 0, [stag, stag])[0] == pytest.approx(1.0)


def test_fictitious_play_finds_the_risk_dominant_equilibrium_of_the_stag_hunt():
    for mixture in RiskAverse(1.0, 0.2)(stag_hunt()):
        assert mixture == pytest.approx([0.0, 1.0], abs=5e-3)


def test_without_aversion_it_is_a_nash_equilibrium():
    pennies = np.array([[1.0, -1.0], [-1.0, 1.0]])
    for mixture in RiskAverse(0.0, steps=4000)(Metagame.of_matrices(pennies)):
        assert mixture == pytest.approx([0.5, 0.5], abs=0.05)


def test_payoffs_of_another_scale_need_the_inverse_aversion():
    draw = np.random.default_rng(3)
    first, second = draw.standard_normal((2, 3, 4))
    one = RiskAverse(2.0, steps=100)(Metagame.of_matrices(first, second))
    other = RiskAverse(0.2, steps=100)(Metagame.of_matrices(10 * first, 10 * second))
    for mine, scaled in zip(one, other, strict=True):
        assert mine == pytest.approx(scaled, abs=1e-5)


def test_negative_aversion_is_refused():
    for part in (RiskAverse, RiskAverseResponse):
        with pytest.raises(InputError, match=r"\.aversion = -1"):
            part(-1.0)
    with pytest.raises(InputError, match=r"^aversion = -1: must be at least 0$"):
        risk_averse_returns(np.ones(2), -1, 0.0)


# ---- responses in trees ---------------------------------------------------------------------------------------------


def test_without_aversion_the_response_is_the_best_response(kuhn):
    draw = np.random.default_rng(4)
    rows = [player.normalized(draw.random((3, player.sequences))) for player in kuhn.players]
    now = Round((kuhn,), tuple(rows), (draw.dirichlet(np.ones(3)),) * 2, 1)
    for player in range(2):
        plan = kuhn.players[player].plan
        assert np.array_equal(plan(RiskAverseResponse(0.0)(player, now)), plan(BestResponse()(player, now)))


def test_in_a_matrix_the_response_is_the_quadratic_programs(kuhn):
    draw = np.random.default_rng(5)
    payoffs = draw.standard_normal((4, 3))
    pure = np.concatenate([np.ones((3, 1)), np.eye(3)], axis=1)
    weights = draw.dirichlet(np.ones(3))
    any_row = np.array([[1.0, 1.0, 0.0, 0.0, 0.0]])
    now = Round((matrix_game(payoffs),), (any_row, pure), (np.ones(1), weights), 1)
    found = RiskAverseResponse(0.7, 0.1)(0, now)[1:]
    game = Metagame.of_matrices(payoffs)
    assert found == pytest.approx(RiskAverse(0.7, 0.1).response(game, 0, [np.ones(4) / 4, weights]), abs=1e-6)


def test_in_a_tree_no_strategy_is_better_than_the_response(kuhn):
    draw = np.random.default_rng(6)
    rows = [player.normalized(draw.random((4, player.sequences))) for player in kuhn.players]
    weights = draw.dirichlet(np.ones(4))
    now = Round((kuhn,), tuple(rows), (weights, weights), 1)

    def worth(strategy) -> float:
        earned = np.array([kuhn.values([strategy, other])[0] for other in rows[1]])
        mean = weights @ earned
        return float(mean - 3.0 * (weights @ (earned - mean) ** 2))

    found = worth(RiskAverseResponse(3.0)(0, now))
    tried = kuhn.players[0].normalized(draw.random((500, kuhn.players[0].sequences)) ** 4)
    assert found >= max(worth(one) for one in tried) - 1e-9
    assert found >= worth(BestResponse()(0, now)) - 1e-9


def test_the_pseudo_return_has_the_gradient_of_mean_less_variance():
    logits = torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    returns = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    chances = logits.softmax(0)
    mean = chances @ returns
    (exact,) = torch.autograd.grad(mean - 0.7 * (chances @ (returns - mean) ** 2), logits, retain_graph=True)
    pseudo = risk_averse_returns(returns, 0.7, float(mean.detach()))
    (estimated,) = torch.autograd.grad(chances @ pseudo, logits)
    assert torch.allclose(exact, estimated, atol=1e-12)
