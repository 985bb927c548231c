from __future__ import annotations

import pytest
import torch

from stratagem.experience import Experience
from stratagem.rewards import TeamReward


def test_every_agent_is_paid_the_mean_of_its_turn() -> None:
    """Two episodes of two agents with two turns and one turn."""
    x = Experience.from_lengths(
        [1] * 6,
        [2, 2, 1, 1],
        [4],
        turn_reward=torch.tensor([1.0, 2.0, 5.0, 0.0, 7.0, -1.0]),
        episode=torch.tensor([4, 4, 9, 9]),
    )
    paid = TeamReward()(x)
    assert paid.turn_reward.tolist() == [3, 1, 3, 1, 3, 3]
    assert paid.returns.tolist() == [4, 4, 3, 3]
    assert torch.equal(TeamReward()(paid).turn_reward, paid.turn_reward)


def test_what_a_return_has_beyond_its_turns_is_earned_in_the_last_one() -> None:
    x = Experience.from_lengths([1] * 4, [2, 2], [2], reward=torch.tensor([4.0, 0.0]), episode=torch.tensor([1, 1]))
    assert TeamReward()(x).turn_reward.tolist() == [0, 2, 0, 2]


def test_episodes_have_to_be_known() -> None:
    with pytest.raises(ValueError, match=r"needs x\.episode"):
        TeamReward()(Experience.from_lengths([1], [1], [1], reward=torch.ones(1)))
