"""Normalisation over the whole batch."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import BatchWhitened, GroupCentered, TotalReturn
from stratagem.experience import Experience


def test_tokens_of_the_batch_have_mean_zero_and_variance_one():
    # Tokens carry 1, 1, 1, 5: mean 2, population variance (3 + 9) / 4 = 3.
    x = Experience.from_lengths([3, 1], [1, 1], [2], reward=[1.0, 5.0])
    root = 3**0.5
    assert BatchWhitened(TotalReturn())(x).tolist() == pytest.approx([-1 / root] * 3 + [3 / root])
    assert BatchWhitened(TotalReturn(), correction=1)(x).tolist() == pytest.approx([-0.5] * 3 + [1.5])


def test_only_tokens_that_may_train_are_counted_and_the_others_get_nothing():
    x = Experience.from_lengths([3, 1], [1, 1], [2], reward=[1.0, 5.0], mask=[False, True, False, True])
    assert BatchWhitened(TotalReturn())(x).tolist() == pytest.approx([0.0, -1.0, 0.0, 1.0])


def test_a_batch_without_a_difference_or_without_a_token_earns_nothing():
    x = Experience.from_lengths([2, 2], [1, 1], [2], reward=[1.0, 1.0])
    assert BatchWhitened(GroupCentered())(x).tolist() == [0.0] * 4
    assert BatchWhitened(TotalReturn())(x).tolist() == [0.0] * 4
    assert BatchWhitened(TotalReturn())(x.replace(mask=torch.zeros(4, dtype=torch.bool))).tolist() == [0.0] * 4
    assert BatchWhitened(TotalReturn())(x.select(torch.tensor([False, False]))).tolist() == []
