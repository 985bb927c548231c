"""Credit per component of the reward: numbers worked by hand, and when it is the joint credit."""

from __future__ import annotations

import math

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
    SpreadWeighted,
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


# ---- by spread ------------------------------------------------------------------------------------------------------

RIGHT, SHORT = [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0]
EQUAL = (0.5, 0.5)


def random_groups(groups: int, size: int, columns: int, seed: int) -> Experience:
    """Groups of one-token answers with rewards in [0, 1], of every correlation, and weights that add up to 1."""
    source = torch.Generator().manual_seed(seed)
    rows = groups * size
    common = torch.rand((rows, 1), generator=source, dtype=torch.float64)
    mixed = torch.rand((groups, columns), generator=source, dtype=torch.float64).repeat_interleave(size, 0)
    own = torch.rand((rows, columns), generator=source, dtype=torch.float64)
    weights = torch.rand(columns, generator=source, dtype=torch.float64)
    return Experience.from_lengths(
        [1] * rows,
        [1] * rows,
        [size] * groups,
        reward=mixed * common + (1 - mixed) * own,
        reward_names=tuple("abcd"[:columns]),
        reward_weights=tuple((weights / weights.sum()).tolist()),
    )


def test_a_column_counts_by_its_spread_in_the_group():
    x = two(RIGHT, SHORT, EQUAL)
    assert SpreadWeighted()(x).tolist() == near([0.80385, -0.26795, -0.26795, -0.26795])
    assert JOINT(x).tolist() == near([1.73205, -0.57735, -0.57735, -0.57735])
    assert PerReward(JOINT)(x).tolist() == near([0.78868, -0.21132, -0.36603, -0.21132])
    assert (SpreadWeighted()(x) / JOINT(x)).tolist() == near([0.46410] * 4)


def test_only_the_proportions_of_the_weights_matter():
    halves, sevens = two(RIGHT, SHORT, EQUAL), two(RIGHT, SHORT, (7.0, 7.0))
    torch.testing.assert_close(SpreadWeighted()(halves), SpreadWeighted()(sevens), atol=1e-6, rtol=0)


@pytest.mark.parametrize("correction", [0, 1])
def test_by_spread_one_reward_twice_or_beside_a_constant_is_the_reward_itself(correction):
    by_spread = SpreadWeighted(GroupStandardized(correction, eps=0.0), correction=correction)
    alone = GroupStandardized(correction, eps=0.0)(two(RIGHT, [0] * 4, (1.0, 0.0)))
    for second, weights in ((RIGHT, EQUAL), ([0.3] * 4, EQUAL), (SHORT, (1.0, 0.0))):
        torch.testing.assert_close(by_spread(two(RIGHT, second, weights)), alone, atol=1e-6, rtol=0)
    constant = two(RIGHT, [0.3] * 4, EQUAL)
    torch.testing.assert_close(PerReward(JOINT)(constant), alone / 2 if correction == 0 else JOINT(constant) / 2)
    single = Experience.from_lengths([1, 2], [1] * 2, [2], turn_reward=[1.0, 0.0])
    assert torch.equal(by_spread(single), by_spread.of(single))


def test_opposite_rewards_cancel_and_what_never_varies_teaches_nothing():
    for second in ([0.0, 1.0, 0.0, 1.0], RIGHT):
        x = two(RIGHT, second, EQUAL)
        expected = [0.0] * 4 if second != RIGHT else JOINT(x).tolist()
        assert SpreadWeighted()(x).tolist() == near(expected)
    assert SpreadWeighted()(two([1, 1], [0.3, 0.3])).tolist() == [0, 0]
    assert SpreadWeighted()(two(RIGHT, SHORT, (0.0, 0.0))).tolist() == [0] * 4


def test_a_reward_in_a_larger_unit_counts_more():
    """Ten times the unit is ten times the odds of the weights, 0.5 / 0.43301 before: not invariant."""
    x = two([10 * r for r in RIGHT], SHORT, EQUAL)
    first = 10 * 0.5 / (10 * 0.5 + math.sqrt(0.1875))
    expected = first * JOINT(two(RIGHT, [0] * 4)) + (1 - first) * JOINT(two([0] * 4, SHORT))
    torch.testing.assert_close(SpreadWeighted()(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("columns", [2, 4])
def test_by_spread_the_group_is_ordered_as_jointly_and_no_answer_counts_more(columns):
    x = random_groups(2_500, 4, columns, 3)
    joint, ours = GroupStandardized(0, eps=0.0)(x).double(), SpreadWeighted()(x).double()
    assert float((ours.abs() - joint.abs()).max()) <= 1e-6
    group = x.group_of_trajectory
    assert x.reward is not None
    weights = torch.tensor(x.reward_weights, dtype=torch.float64)
    ratio = group.std(x.returns, 0) / (group.std(x.reward, 0) * weights).sum(1)
    torch.testing.assert_close(ours, group.spread(ratio) * joint, atol=2e-6, rtol=0)
    assert 0 < float(ratio.min()) < float(ratio.max()) <= 1


def test_joint_credit_is_larger_than_credit_apart_in_the_mean_square():
    x = random_groups(500, 5, 3, 4)
    joint, apart = (x.group_of_trajectory.mean(of(x) ** 2) for of in (JOINT, PerReward(GroupStandardized(0, eps=0.0))))
    assert bool((joint >= apart - 1e-4).all()) and float((joint - apart).max()) > 0.1


def test_how_credit_moves_with_a_reward_is_as_the_formula_says():
    """``dA_i / dR_ik = v_k / std_k (1 - 1/G - A_i A_ik / G)``: the other rewards enter through ``A_i``."""
    x = random_groups(1, 6, 3, 5)
    assert x.reward is not None
    reward = x.reward.clone().requires_grad_()
    credit = SpreadWeighted()(x.replace(reward=reward))
    spread = reward.detach().std(0, correction=0)
    each = (reward.detach() - reward.detach().mean(0)) / spread
    weights = torch.tensor(x.reward_weights, dtype=torch.float64) * spread
    share = weights / weights.sum()
    for i in range(6):
        (slope,) = torch.autograd.grad(credit[i], reward, retain_graph=True)
        expected = share / spread * (1 - 1 / 6 - float(credit[i].detach()) * each[i] / 6)
        torch.testing.assert_close(slope[i], expected, atol=1e-6, rtol=1e-6)


def test_at_strength_zero_columns_count_by_their_weights_alone():
    x = random_groups(50, 4, 3, 6)
    torch.testing.assert_close(SpreadWeighted(JOINT, strength=0.0)(x), PerReward(JOINT)(x))
    halfway = SpreadWeighted(strength=0.5)(two(RIGHT, SHORT, EQUAL))
    first = math.sqrt(0.5) / (math.sqrt(0.5) + 0.1875**0.25)
    apart = first * JOINT(two(RIGHT, [0] * 4)) + (1 - first) * JOINT(two([0] * 4, SHORT))
    torch.testing.assert_close(halfway, apart, atol=1e-5, rtol=0)


def test_weights_by_spread_are_refused_where_they_mean_nothing():
    with pytest.raises(InputError, match=r"spread_weighted\.of = gae: reads one critic"):
        SpreadWeighted(GAE())
    with pytest.raises(InputError, match=r"weight of reward 'accuracy' = -1\.0: must be at least 0"):
        SpreadWeighted()(two(RIGHT, SHORT, (1.0, -1.0)))
    with pytest.raises(InputError, match="trajectory 1 has accuracy nan: must be finite"):
        SpreadWeighted()(two(RIGHT, [1.0, math.nan, 0.0, 1.0]))
    with pytest.raises(InputError, match="spread_weighted: token rewards belong to no column"):
        SpreadWeighted()(two([1, 0], [0, 1]).replace(token_reward=torch.zeros(2)))
