"""Noise drawn from a seed, with a learned width."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience
from stratagem.lab.experts import read_node_policy
from stratagem.lab.policy import NodeInputs, TabularPolicy
from stratagem.objectives import Perturbed
from stratagem.training.noise import with_noise


def log(sigma: float) -> torch.Tensor:
    return torch.tensor(math.log(sigma), requires_grad=True)


def test_a_linear_map_makes_noise_of_its_own_covariance():
    """``Var(z_a - z_b) = sigma^2 |w_a - w_b|^2`` for ``z = W h``."""
    weights = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 1.0]])
    hidden = with_noise(torch.ones(400_000, 3), log(0.3), 1.0, seed=1)
    gap = (hidden @ weights.T).diff(dim=1).squeeze(1)
    assert float(gap.detach().var()) == pytest.approx(0.09 * float((weights[0] - weights[1]).square().sum()), rel=0.01)


def test_noise_flattens_what_it_is_put_before():
    """A gap of 4 between two logits, with Gaussian noise of width 2: 0.932332 instead of sigmoid(4) = 0.982014."""
    tokens = 1_000_000
    inputs = NodeInputs(torch.zeros(tokens, dtype=torch.int64), torch.tensor([tokens]))
    x = Experience.from_lengths([tokens], [1], [1], inputs=inputs, action=torch.zeros(tokens, dtype=torch.int64))
    policy = TabularPolicy(torch.tensor([[2.0, -2.0]]))
    torch.manual_seed(0)
    # sigma sqrt(2) = 2, and the signal's own root mean square is 2.
    found = policy(x, view=Perturbed(initial=math.sqrt(2.0))).logp.detach().exp().mean()
    assert float(found) == pytest.approx(0.932332, abs=5e-4)
    assert float(policy(x.select(torch.tensor([0]))).logp[0].detach().exp()) == pytest.approx(0.982014, abs=1e-6)


def test_gradients_are_of_the_noise_that_was_drawn():
    signal = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    width = log(0.2)
    noisy = with_noise(signal, width, 10.0, seed=7)
    weights = torch.arange(15.0).view(5, 3)
    (weights * noisy).sum().backward()
    assert torch.equal(signal.grad, weights)
    drawn = (noisy - signal).detach()
    assert float(width.grad) == pytest.approx(float((weights * drawn).sum()), rel=1e-4)


def test_noise_stays_below_the_bound_and_then_teaches_its_width_nothing():
    signal = torch.full((100_000,), 3.0)
    width = log(50.0)
    noisy = with_noise(signal, width, 0.5, seed=0)
    assert float((noisy - signal).detach().std()) == pytest.approx(1.5, rel=0.02)
    noisy.sum().backward()
    assert float(width.grad) == 0.0


def test_a_table_that_was_perturbed_is_saved_without_its_noise(tmp_path):
    policy = TabularPolicy(torch.randn(3, 4))
    assert policy.view_parameters(None) == []
    [first] = policy.view_parameters(Perturbed(initial=0.1))
    [again] = policy.view_parameters(Perturbed(initial=0.9))
    assert first is again
    policy.save(tmp_path / "saved", "card")
    assert torch.equal(read_node_policy(tmp_path / "saved").logits, policy.logits)
