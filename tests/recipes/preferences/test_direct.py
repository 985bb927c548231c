"""Online DPO, held against the closed form of its loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from stratagem import catalogue
from stratagem.experience import Experience
from stratagem.preferences import BradleyTerry
from stratagem.preferences.games import noisy
from stratagem.preferences.solvers import Exact, OnlineDPO, solve
from stratagem.recipe import Recipe
from stratagem.recipes import online_dpo

from .conftest import expected_batch, gradient, loss_of, oracle

ROCK = torch.tensor([[0.5, 0, 1], [1, 0.5, 0], [0, 1, 0.5]], dtype=torch.float64)
POLICY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def test_it_is_in_the_catalogue():
    recipe = catalogue.card("online_dpo").recipe()
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_on_two_answers_it_is_dpos_loss():
    ones = [1, 1]
    x = Experience.from_lengths(
        ones,
        ones,
        [2],
        reward=[0.0, 1.0],
        action=[0, 1],
        seed=[5, 7],
        behavior_logp=[-1.0, -2.0],
        ref_logp=[-1.5, -0.5],
    )
    logp = torch.tensor([-0.3, -1.1])
    apart = (-1.1 + 0.5) - (-0.3 + 1.5)
    expected = -logsigmoid(torch.tensor(0.4 * apart))
    for temperature, label in ((0.0, 1.0), (0.5, torch.sigmoid(torch.tensor(2.0)).item())):
        recipe = online_dpo(0.4, BradleyTerry(temperature))
        expected = -label * logsigmoid(torch.tensor(0.4 * apart)) - (1 - label) * logsigmoid(torch.tensor(-0.4 * apart))
        assert float(loss_of(recipe, x, logp)) == pytest.approx(float(expected), rel=1e-5)


def test_on_more_answers_it_is_the_mean_over_pairs():
    wins, beta = noisy(ROCK, 0.1), 0.4
    x = expected_batch(POLICY, REFERENCE)
    logp = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    h = beta * (logp - REFERENCE.log())[x.action]
    label = wins[x.action][:, x.action]
    apart = h.unsqueeze(1) - h
    pairs = -label * logsigmoid(apart) - (1 - label) * logsigmoid(-apart)
    expected = pairs[~torch.eye(10, dtype=torch.bool)].mean()
    torch.testing.assert_close(loss_of(online_dpo(beta, oracle(wins)), x, logp), expected)


def test_its_loss_is_least_at_the_policy_of_the_fitted_scores():
    wins = noisy(ROCK, 0.1)
    following = solve(OnlineDPO(0.4), Exact(wins), REFERENCE, 1, POLICY).last
    found = gradient(online_dpo(0.4, oracle(wins)), expected_batch(POLICY, REFERENCE), following.log())
    torch.testing.assert_close(found, torch.zeros(3).double(), atol=1e-9, rtol=0)
