"""Credit per component of the reward: numbers worked by hand, and when it is the joint credit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import (
    GAE,
    BatchWhitened,
    GroupCentered,
    GroupStandardized,
    LeaveOneOut,
    MovingAverageBaseline,
    PerReward,
    RewardToGo,
)
from stratagem.errors import InputError
from stratagem.experience import Experience

JOINT = GroupStandardized(correction=0)


def two(format_: list[float], accuracy: list[float], weights: tuple[float, float] = (1.0, 1.0)) -> Experience:
    """One group of one-token answers."""
    rows = len(format_)
    reward = torch.tensor([format_, accuracy]).T.contiguous()
    names = ("format", "accuracy")
    return Experience.from_lengths(
        [1] * rows, [1] * rows, [rows], reward=reward, reward_names=names, reward_weights=weights
    )


def near(values: list[float]) -> object:
    return pytest.approx(values, abs=2e-5)


def test_a_common_and_a_rare_success_weigh_more_apart_than_together():
    x = two([1, 1, 1, 0], [1, 0, 0, 0])
    assert JOINT(x).tolist() == near([1.414214, 0, 0, -1.414214])
    assert PerReward(JOINT)(x).tolist() == near([2.309401, 0, 0, -2.309401])
    assert GroupCentered()(x).tolist() == PerReward(GroupCentered())(x).tolist() == near([1, 0, 0, -1])


def test_the_direction_may_be_another():
    x = two([1, 1, 0, 0], [1, 0, 0, 0])
    joint, apart = JOINT(x), PerReward(JOINT)(x)
    assert joint.tolist() == near([1.507557, 0.301511, -0.904534, -0.904534])
    assert apart.tolist() == near([2.732051, 0.42265, -1.57735, -1.57735])
    assert float(torch.cosine_similarity(joint, apart, dim=0)) == pytest.approx(0.999310, abs=1e-6)
    assert GroupCentered()(x).tolist() == PerReward(GroupCentered())(x).tolist() == near([1.25, 0.25, -0.75, -0.75])


def test_of_opposite_components_only_the_scale_is_another():
    x = two([1, 1, 1, 0], [0, 0, 0, 1], weights=(1.0, 0.5))
    assert JOINT(x).tolist() == near([0.577350] * 3 + [-1.732051])
    assert PerReward(JOINT)(x).tolist() == near([0.288675] * 3 + [-0.866025])


def test_one_reward_is_credited_as_ever():
    single = Experience.from_lengths([1, 2, 3], [1] * 3, [3], reward=[1.0, 0.0, 0.5])
    assert torch.equal(PerReward()(single), GroupStandardized()(single))
    turns = Experience.from_lengths([1, 2, 3], [1] * 3, [3], turn_reward=[1.0, 0.0, 0.5])
    assert torch.equal(PerReward()(turns), GroupStandardized()(turns))


def test_a_constant_component_changes_nothing_joint_or_apart():
    plain, constant = two([1, 1, 0, 0], [0, 0, 0, 0]), two([1, 1, 0, 0], [0.7, 0.7, 0.7, 0.7])
    for advantage in (JOINT, PerReward(JOINT)):
        torch.testing.assert_close(advantage(plain), advantage(constant), atol=2e-6, rtol=0)
    assert PerReward(JOINT)(two([1, 1, 1, 1], [0.7, 0.7, 0.7, 0.7])).tolist() == [0] * 4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), weights=st.tuples(*[st.floats(-2, 2)] * 3))
def test_what_is_linear_in_the_reward_cannot_be_taken_apart(seed, weights):
    source = torch.Generator().manual_seed(seed)
    reward = torch.randn((12, 3), generator=source)
    x = Experience.from_lengths([2, 1] * 6, [1] * 12, [4, 8], reward=reward, reward_weights=weights)
    for advantage in (GroupCentered(), LeaveOneOut(), RewardToGo()):
        torch.testing.assert_close(PerReward(advantage)(x), advantage(x), atol=1e-5, rtol=1e-5)


def test_it_can_be_whitened_over_the_batch_and_added_to_others():
    x = two([1, 1, 1, 0], [1, 0, 0, 0])
    whitened = BatchWhitened(PerReward(JOINT))(x)
    assert float(whitened.mean()) == pytest.approx(0, abs=1e-6) and float(whitened.std(correction=0)) == pytest.approx(
        1
    )
    both = PerReward(JOINT) + 0.5 * GroupCentered()
    assert both(x).tolist() == near([2.809401, 0, 0, -2.809401])
    assert PerReward().least_group() == 2


def test_what_columns_cannot_share_is_refused():
    with pytest.raises(InputError, match=r"per_reward\.of = gae: reads one critic"):
        PerReward(GAE())
    with pytest.raises(InputError, match=r"per_reward\.of = moving_average_baseline: remembers"):
        PerReward(MovingAverageBaseline())
    x = two([1, 0], [0, 1]).replace(token_reward=torch.zeros(2))
    with pytest.raises(InputError, match="token rewards belong to no column"):
        PerReward()(x)
