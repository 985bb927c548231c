"""Group-relative advantages against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupStandardized, LeaveOneOut
from stratagem.experience import Experience


def groups(*rewards: list[float], tokens: int = 1) -> Experience:
    flat = [reward for group in rewards for reward in group]
    sizes = [len(group) for group in rewards]
    return Experience.from_lengths([tokens] * len(flat), [1] * len(flat), sizes, reward=torch.tensor(flat))


def test_one_success_in_four_worked_by_hand():
    # mean 1/4; sample variance (9/16 + 3/16) / 3 = 1/4; population variance 3/16, and (3/4) / sqrt(3/16) = sqrt(3).
    x = groups([1.0, 0, 0, 0])
    exact = {"abs": 1e-5}
    assert GroupStandardized()(x).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], **exact)
    population = GroupStandardized(correction=0)(x).tolist()
    assert population == pytest.approx([1.732051, -0.577350, -0.577350, -0.577350], **exact)
    assert LeaveOneOut()(x).tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert GroupCentered()(x).tolist() == [0.75, -0.25, -0.25, -0.25]


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=12))
def test_leave_one_out_is_a_multiple_of_the_centered_reward(rewards):
    x = groups(rewards)
    factor = len(rewards) / (len(rewards) - 1)
    assert torch.allclose(LeaveOneOut()(x), factor * GroupCentered()(x), atol=1e-5)


@given(st.floats(-100, 100, width=32), st.integers(2, 9))
def test_a_group_of_equal_rewards_earns_exactly_nothing(reward, size):
    x = groups([reward] * size, [0.0, 1.0])
    for advantage in (GroupCentered(), GroupStandardized(), GroupStandardized(correction=0, eps=0), LeaveOneOut()):
        assert advantage(x)[:size].tolist() == [0.0] * size
        assert bool(advantage(x).isfinite().all())


def test_groups_are_judged_apart_and_every_token_gets_its_trajectorys_credit():
    x = groups([1.0, 3.0], [10.0, 20.0, 30.0], tokens=2)
    assert GroupCentered()(x).tolist() == [-1, -1, 1, 1, -10, -10, 0, 0, 10, 10]
    assert GroupStandardized(eps=0)(x)[4:].tolist() == [-1, -1, 0, 0, 1, 1]


def test_a_large_reward_level_does_not_round_the_difference_away():
    x = groups([1e6 + 1, 1e6, 1e6, 1e6])
    assert LeaveOneOut()(x).tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert GroupStandardized()(x).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


def test_trajectories_without_tokens_count_in_the_group_but_get_no_credit():
    x = Experience.from_lengths([1, 0, 2], [1, 1, 1], [3], reward=[1.0, 0.0, 2.0])
    assert GroupCentered()(x).tolist() == [0.0, 1.0, 1.0]


def test_a_group_of_one_raises_for_leave_one_out_and_earns_nothing_otherwise():
    with pytest.raises(ValueError, match="at least 2 rows"):
        LeaveOneOut()(groups([1.0]))
    assert GroupCentered()(groups([1.0])).tolist() == [0.0]
    assert GroupStandardized()(groups([1.0])).tolist() == [0.0]


def test_eps_is_added_to_the_standard_deviation():
    x = groups([0.0, math.sqrt(2)])  # sample standard deviation 1
    assert GroupStandardized(eps=1.0)(x).tolist() == pytest.approx([-math.sqrt(0.5) / 2, math.sqrt(0.5) / 2])


def test_leave_one_out_keeps_the_digits_of_float64_returns():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64))
    assert LeaveOneOut()(x).tolist() == pytest.approx([-0.35, -0.2, 0.55], abs=1e-15)
    assert LeaveOneOut()(groups([0.1, 0.2])).dtype == torch.float32
