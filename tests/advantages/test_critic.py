"""Advantages that rest on a value function."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import GAE
from stratagem.experience import Experience


def test_three_tokens_with_a_reward_at_the_end_worked_by_hand():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], value=torch.tensor([0.5, 0.6, 0.8]))
    assert GAE(discount=1.0, trace=0.95)(x).tolist() == pytest.approx([0.4705, 0.39, 0.2])
    assert GAE(discount=1.0, trace=0.95).value_target(x).tolist() == pytest.approx([0.9705, 0.99, 1.0])


def test_a_trace_of_one_is_the_return_minus_the_value_and_of_zero_the_one_step_error():
    x = Experience.from_lengths([2, 1], [2], [1], turn_reward=[1.0, 2.0], value=torch.tensor([0.5, 0.25, 4.0]))
    assert GAE(trace=1.0)(x).tolist() == [2.5, 2.75, -2.0]
    assert GAE(trace=0.0)(x).tolist() == [0.25 - 0.5, 1 + 4 - 0.25, 2.0 - 4.0]


def test_a_cut_trajectory_continues_with_its_final_value():
    x = Experience.from_lengths(
        [1, 1], [1, 1], [2], reward=[1.0, 1.0], value=torch.zeros(2), final_value=torch.tensor([3.0, 0.0])
    )
    assert GAE(discount=0.5)(x).tolist() == [2.5, 1.0]


def test_a_batch_without_values_is_refused():
    with pytest.raises(ValueError, match=r"GAE needs x\.value"):
        GAE()(Experience.from_lengths([1], [1], [1], reward=[1.0]))
