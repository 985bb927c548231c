"""Importance ratios per token and per longer unit."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import GeometricMeanRatio, ProductRatio, TokenRatio

THREE = torch.tensor([0.1, -0.1, 0.3])


def batch(tokens=(3,), turns=(1,), **fields) -> Experience:
    total = sum(tokens)
    return Experience.from_lengths(tokens, turns, [len(turns)], old_logp=torch.full((total,), -1.0), **fields)


def test_token_ratios_are_of_the_old_or_of_the_behaviour_policy():
    x = batch(behavior_logp=torch.full((3,), -2.0))
    assert TokenRatio()(PolicyOutput(THREE - 1), x).tolist() == pytest.approx([math.exp(v) for v in (0.1, -0.1, 0.3)])
    assert TokenRatio("behavior")(PolicyOutput(torch.full((3,), -2.0)), x).tolist() == [1.0] * 3
    with pytest.raises(ValueError, match="needs behavior_logp"):
        TokenRatio("behavior")(PolicyOutput(THREE), batch())


def test_a_policy_that_has_not_moved_has_ratio_one_and_the_gradient_of_its_log_probability():
    logp = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    ratio = TokenRatio()(PolicyOutput(logp), batch().replace(old_logp=None))
    assert ratio.tolist() == [1.0] * 3
    ratio.sum().backward()
    assert logp.grad.tolist() == [1.0] * 3


def test_a_huge_log_ratio_is_bounded():
    x = batch([2])
    ratio = TokenRatio()(PolicyOutput(torch.tensor([500.0, -500.0])), x)
    assert ratio.tolist() == pytest.approx([math.exp(20), math.exp(-20)])


def test_the_geometric_mean_over_a_trajectory_worked_by_hand():
    logp = (THREE - 1).requires_grad_()
    ratio = GeometricMeanRatio()(PolicyOutput(logp), batch())
    assert ratio.tolist() == pytest.approx([1.105171] * 3, abs=1e-6)
    ratio[0].backward()
    assert logp.grad.tolist() == pytest.approx([1.105171 / 3] * 3, abs=1e-6)


def test_the_geometric_mean_may_be_by_turn():
    ratio = GeometricMeanRatio("turn")(PolicyOutput(THREE - 1), batch([2, 1], [2]))
    assert ratio.tolist() == pytest.approx([1.0, 1.0, math.exp(0.3)])


def test_the_geometric_mean_leaves_out_tokens_that_may_not_train():
    x = batch(mask=[True, False, True])
    ratio = GeometricMeanRatio()(PolicyOutput(torch.tensor([-0.9, -math.inf, -0.7])), x)
    assert ratio.tolist() == pytest.approx([math.exp(0.2)] * 3)


def test_trajectories_without_tokens_have_no_ratio():
    ratio = GeometricMeanRatio()(PolicyOutput(torch.tensor([-0.9, -0.8])), batch([1, 0, 1], [1, 1, 1]))
    assert ratio.tolist() == pytest.approx([math.exp(0.1), math.exp(0.2)])


def test_the_product_is_the_ratio_of_the_whole_unit_and_reaches_every_token_of_it():
    logp = (THREE - 1).requires_grad_()
    ratio = ProductRatio()(PolicyOutput(logp), batch())
    assert ratio.tolist() == pytest.approx([math.exp(0.3)] * 3)
    ratio[0].backward()
    assert logp.grad.tolist() == pytest.approx([math.exp(0.3)] * 3)
    by_turn = ProductRatio("turn")(PolicyOutput(THREE - 1), batch([2, 1], [2]))
    assert by_turn.tolist() == pytest.approx([1.0, 1.0, math.exp(0.3)])
    masked = ProductRatio()(PolicyOutput(torch.tensor([-0.9, -math.inf, -0.7])), batch(mask=[True, False, True]))
    assert masked.tolist() == pytest.approx([math.exp(0.4)] * 3)
