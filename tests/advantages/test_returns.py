"""Returns and the baselines that need no group."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import Constant, MovingAverageBaseline, RewardToGo, TotalReturn
from stratagem.experience import Experience


def batch(*rewards: float) -> Experience:
    ones = [1] * len(rewards)
    return Experience.from_lengths(ones, ones, ones, reward=torch.tensor(rewards))


def test_total_return_and_constant():
    x = Experience.from_lengths([2, 1], [1, 1], [2], reward=[3.0, -1.0])
    assert TotalReturn()(x).tolist() == [3.0, 3.0, -1.0]
    assert Constant(0.5)(x).tolist() == [0.5] * 3


def test_the_moving_average_is_of_past_batches_and_not_drawn_to_zero():
    advantage = MovingAverageBaseline(decay=0.5)
    # Baselines: 0; 4; then (0.25 * 4 + 0.5 * 1) / 0.75 = 2.
    assert advantage(batch(6.0, 2.0)).tolist() == [6.0, 2.0]
    assert advantage(batch(1.0)).tolist() == pytest.approx([-3.0])
    assert advantage(batch(2.0)).tolist() == pytest.approx([0.0], abs=1e-6)


def test_a_moving_average_without_decay_is_the_last_batch():
    advantage = MovingAverageBaseline(decay=0.0)
    advantage(batch(6.0, 2.0))
    assert advantage(batch(1.0)).tolist() == [-3.0]
    assert advantage(batch(5.0)).tolist() == [4.0]


def test_an_empty_batch_leaves_the_moving_average_alone():
    advantage = MovingAverageBaseline(decay=0.5)
    advantage(batch(4.0))
    advantage(batch(4.0).select(torch.tensor([False])))
    assert advantage(batch(5.0)).tolist() == [1.0]


def test_reward_to_go_discounts_by_token_and_stops_at_the_trajectory():
    x = Experience.from_lengths([2, 1, 2], [2, 1], [2], turn_reward=[1.0, 4.0, 8.0])
    assert RewardToGo(0.5)(x).tolist() == [0.5 + 1.0, 1.0 + 2.0, 4.0, 4.0, 8.0]
    assert RewardToGo()(x).tolist() == [5.0, 5.0, 4.0, 8.0, 8.0]


def test_reward_to_go_of_a_charge_on_every_token():
    x = Experience.from_lengths([3], [1], [1], reward=[1.0], token_reward=torch.tensor([-0.1, -0.2, -0.3]))
    assert RewardToGo()(x).tolist() == pytest.approx([0.4, 0.5, 0.7])
