"""Uncertain transitions, and fitting them to traces."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.latent import DirichletPolicy, Trace, expected_transitions, fit
from stratagem.latent.transitions import LEAST, MOST


def with_concentration(*rows: tuple[float, ...]) -> DirichletPolicy:
    alpha = torch.tensor(rows, dtype=torch.float64)
    return DirichletPolicy(torch.arange(len(rows)), torch.log(torch.expm1(alpha)))


def test_the_mean_and_the_variance_are_those_of_a_dirichlet():
    policy = with_concentration((2.0, 1.0, 1.0))
    torch.testing.assert_close(policy.mean()[0], torch.tensor([0.5, 0.25, 0.25]))
    assert float(policy.concentration().detach().sum()) == pytest.approx(4.0)
    # 0.5 * 0.5 / 5 for the first, 0.25 * 0.75 / 5 for each of the others.
    assert float(policy.uncertainty().detach()) == pytest.approx(0.05 + 2 * 0.0375)


def test_less_concentration_is_more_uncertain_with_the_same_mean():
    policy = with_concentration((0.2, 0.1), (20.0, 10.0))
    torch.testing.assert_close(policy.mean()[0], policy.mean()[1])
    assert policy.uncertainty()[0] > 20 * policy.uncertainty()[1]


def test_concentrations_stay_within_their_bounds():
    policy = DirichletPolicy(torch.arange(1), torch.tensor([[-1e4, 1e4]]))
    assert policy.concentration().tolist() == [[pytest.approx(LEAST), MOST]]
    assert policy.table().isfinite().all()


def test_states_drawn_by_way_of_a_distribution_have_the_odds_of_its_mean():
    policy = with_concentration((2.0, 1.0, 1.0), (0.01, 0.01, 0.02))
    source = torch.Generator().manual_seed(5)
    for kind, odds in ((0, (0.5, 0.25, 0.25)), (1, (0.25, 0.25, 0.5))):
        drawn = policy.sample(torch.full((20_000,), kind), source)
        share = torch.bincount(drawn, minlength=3) / len(drawn)
        torch.testing.assert_close(share, torch.tensor(odds), atol=0.02, rtol=0)


def test_counts_are_those_of_the_transitions_the_posterior_expects():
    q = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    found = expected_transitions([Trace(0, torch.tensor([1, 2]), q)], 3, 2)
    expected = torch.tensor([[1.0, 0.0], [0.25 + 0.125, 0.75 + 0.125], [0.375, 0.375]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_fitting_finds_the_shares_of_the_traces_and_leaves_the_rest_alone():
    policy = DirichletPolicy(torch.arange(4), torch.zeros(4, 2))
    after, certain = torch.tensor([1, 2]), torch.eye(2)
    traces = [Trace(0, after, certain[[0, 1]])] * 3 + [Trace(0, after, certain[[1, 0]])]
    reached = fit(policy, traces, steps=400)
    mean = policy.mean().detach()
    assert float(mean[0, 0]) == pytest.approx(0.75, abs=0.01)
    assert float(mean[1, 1]) > 0.97 and float(mean[2, 0]) > 0.97
    assert mean[3].tolist() == [0.5, 0.5]
    # Half of the transitions are from the start, and explained no better than by their entropy.
    best = 0.5 * (0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert reached == pytest.approx(best, abs=0.02) and reached < best


def test_traces_without_steps_are_nothing_to_fit():
    policy = DirichletPolicy(torch.arange(3), torch.zeros(3, 2))
    with pytest.raises(InputError, match="no trace has a step"):
        fit(policy, [Trace(0, torch.tensor([1, 2]), torch.zeros(0, 2))])
