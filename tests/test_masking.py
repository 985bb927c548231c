"""Masked values are 0, in derivatives of any order, and the others are what they were to the last bit."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.masking import only

ODD = [math.nan, math.inf, -math.inf, -0.0, 1.5, -2.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_kept_is_kept_to_the_last_bit_and_the_rest_is_zero(dtype):
    values, mask = torch.tensor(2 * ODD, dtype=dtype), torch.tensor([True] * 6 + [False] * 6)
    kept = only(mask, values)
    assert kept.dtype == dtype
    torch.testing.assert_close(kept[:6], values[:6], equal_nan=True, rtol=0, atol=0)
    assert kept[6:].tolist() == [0.0] * 6


@pytest.mark.parametrize("values", [torch.arange(4), torch.arange(4.0).expand(4), torch.arange(8.0)[::2]])
def test_other_types_and_other_strides_work_as_well(values):
    mask = torch.tensor([True, False, True, False])
    kept = only(mask, values)
    assert torch.equal(kept, values * mask) and kept.dtype == values.dtype


def test_a_row_of_numbers_is_kept_or_not():
    values = torch.arange(12.0).view(2, 2, 3)
    assert torch.equal(only(torch.tensor([False, True]), values)[0], torch.zeros(2, 3))
    assert torch.equal(only(torch.tensor([False, True]), values)[1], values[1])


def test_nothing_at_masked_tokens_reaches_a_gradient():
    values = torch.tensor([2.0, 0.0, -1.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    loss = (only(mask, values).square() * torch.tensor([1.0, 5.0, 3.0])).sum()
    (slope,) = torch.autograd.grad(loss, values, create_graph=True)
    assert slope.tolist() == [4.0, 0.0, -6.0]
    (curvature,) = torch.autograd.grad(slope.sum(), values)
    assert curvature.tolist() == [2.0, 0.0, 6.0]


def test_a_derivative_that_is_no_number_stops_at_the_mask():
    values = torch.tensor([4.0, 0.0], requires_grad=True)
    only(torch.tensor([True, False]), values).sqrt().sum().backward()  # The slope of a root at 0 is infinite.
    assert values.grad.tolist() == [0.25, 0.0]


def test_its_gradient_agrees_with_differences():
    values = torch.randn(5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda v: only(mask, v), values)
    assert torch.autograd.gradgradcheck(lambda v: only(mask, v).square(), values)
