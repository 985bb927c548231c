"""Normalisation of returns by group and batch, of other advantages over the whole batch, and their clip."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stratagem import recipes
from stratagem.advantages import (
    BatchWhitened,
    ClippedAdvantage,
    Exponential,
    GroupCentered,
    GroupStandardized,
    NormalizedReturn,
    TotalReturn,
)
from stratagem.errors import InputError
from stratagem.experience import Experience

# ---- returns by group and batch -------------------------------------------------------------------------------------


def answers(*groups: list[float]) -> Experience:
    """Answers of one token with these returns."""
    returns = [reward for group in groups for reward in group]
    ones = [1] * len(returns)
    return Experience.from_lengths(ones, ones, list(map(len, groups)), reward=torch.tensor(returns))


def normalized(x: Experience, **fields) -> Tensor:
    return NormalizedReturn(**{"correction": 0, "eps": 0.0, **fields})(x)


ONE_AND_THREE = ([1.0, 0, 0, 0], [1.0, 1, 1, 0])


def test_the_groups_mean_and_the_batchs_deviation_worked_by_hand():
    x = answers(*ONE_AND_THREE)
    # The population deviation of four ones and four zeros is 1/2, the sample's sqrt(2 / 7) = 0.534522.
    assert normalized(x).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -1.5])
    sample = NormalizedReturn()(x).tolist()
    assert sample == pytest.approx([1.403122] + [-0.467707] * 3 + [0.467707] * 3 + [-1.403122], abs=1e-5)


def test_the_other_normalisations_worked_by_hand():
    x = answers(*ONE_AND_THREE)
    root = math.sqrt(3)
    assert normalized(x, scale="group").tolist() == pytest.approx([root] + [-1 / root] * 3 + [1 / root] * 3 + [-root])
    assert normalized(x, center="batch").tolist() == [1, -1, -1, -1, 1, 1, 1, -1]
    assert normalized(x, scale=None).tolist() == [0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75]
    assert normalized(x, center="batch", scale=None).tolist() == [0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -0.5]
    # Centered returns are +-3/4 twice and +-1/4 six times: their mean square is 3/16.
    of_centered = normalized(x, spread_of="centered")
    assert of_centered.tolist() == pytest.approx((normalized(x) / 2 / math.sqrt(3 / 16)).tolist())


def test_a_group_of_equal_returns_gets_nothing_and_still_counts_in_the_batchs_deviation():
    # Five ones of eight: deviation sqrt(15 / 64) = 0.484123.
    assert normalized(answers([1.0] * 4, [1.0, 0, 0, 0])).tolist() == pytest.approx(
        [0.0] * 4 + [1.549193] + [-0.516398] * 3, abs=1e-6
    )


@pytest.mark.parametrize("scale", ["group", "batch", None])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_a_batch_of_equal_returns_gets_exactly_nothing(scale, eps):
    assert normalized(answers([0.3] * 3, [0.3] * 2), scale=scale, eps=eps).tolist() == [0.0] * 5


RETURNS = st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=5)


@settings(deadline=None)
@given(RETURNS, RETURNS, st.sampled_from([("group", "group"), ("group", "batch"), ("batch", "batch")]))
def test_an_affine_change_of_rewards_changes_nothing_that_is_divided_by_a_deviation(first, second, levels):
    x, stretched = answers(first, second), answers(*[[4 * r + 3 for r in group] for group in (first, second)])
    center, scale = levels
    torch.testing.assert_close(
        normalized(stretched, center=center, scale=scale), normalized(x, center=center, scale=scale)
    )
    only_centered = normalized(x, center=center, scale=None)
    torch.testing.assert_close(normalized(stretched, center=center, scale=None), 4 * only_centered)


@settings(deadline=None)
@given(RETURNS, RETURNS, st.sampled_from([0, 1]))
def test_two_of_its_forms_have_names_of_their_own(first, second, correction):
    x = answers(first, second)
    both = NormalizedReturn("group", "group", correction=correction)(x)
    torch.testing.assert_close(both, GroupStandardized(correction)(x))
    assert torch.equal(NormalizedReturn("group", None)(x), GroupCentered()(x))


def test_what_compares_within_groups_needs_groups_of_two():
    one = {"sampler.group_size": 1, "advantage": "normalized_return"}
    with pytest.raises(InputError, match=r"group_size = 1: advantage normalized_return compares within a group"):
        recipes.reinforce().with_values(one)
    assert NormalizedReturn("batch", "batch").least_group() == NormalizedReturn("batch", None).least_group() == 1
    with pytest.raises(InputError, match=r"normalized_return\.scale = group: needs center = group"):
        NormalizedReturn("batch", "group")
    with pytest.raises(InputError, match=r"normalized_return\.scale = 'prompt'"):
        NormalizedReturn(scale="prompt")


# ---- clip -----------------------------------------------------------------------------------------------------------


def test_a_rare_success_counts_no_more_than_the_limit():
    # One success in a hundred: deviation sqrt(0.0099) = 0.0995, advantage 0.99 / 0.0995 = 9.95.
    x = answers([1.0] + [0.0] * 99)
    plain = NormalizedReturn(correction=0)
    assert plain(x)[0].item() == pytest.approx(9.95, abs=0.01)
    clipped = ClippedAdvantage(plain, limit=2.0)(x)
    assert clipped[0].item() == 2.0
    assert torch.equal(clipped[1:], plain(x)[1:])
    assert ClippedAdvantage(-1.0 * plain)(x)[0].item() == -2.0
    assert ClippedAdvantage(plain).least_group() == 2
    with pytest.raises(InputError, match=r"clipped_advantage\.limit = 0\.0"):
        ClippedAdvantage(plain, limit=0.0)


def test_an_exponential_weight_is_never_negative_and_bounded():
    x = Experience.from_lengths([1, 1, 1], [1, 1, 1], [3], reward=[-2.0, 0.0, 900.0])
    assert Exponential(TotalReturn(), temperature=2.0, largest=5.0)(x).tolist() == pytest.approx(
        [2.718281828**-1, 1, 5]
    )
    assert Exponential(GroupCentered()).least_group() == GroupCentered().least_group()
    with pytest.raises(InputError, match=r"exponential\.temperature = 0\.0"):
        Exponential(TotalReturn(), temperature=0.0)


# ---- over the tokens of the batch -----------------------------------------------------------------------------------


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


# ---- by domain ------------------------------------------------------------------------------------------------------


def two_tasks(scale: float = 1.0) -> Experience:
    """Two groups of one task, worked by hand, and two of another, whose rewards are scaled."""
    rewards = torch.tensor([1.0, 0, 1, 1, 0.5, 0.1, 0.2, 0.2])
    rewards[4:] *= scale
    return Experience.from_lengths([1] * 8, [1] * 8, [2] * 4, groups_per_domain=[2, 2], reward=rewards)


def test_the_deviation_of_a_task_worked_by_hand():
    # Over 1, 0, 1, 1 the deviation is sqrt(3/16); each group has its own mean.
    credit = NormalizedReturn("group", "domain", correction=0)(two_tasks())
    assert credit[:4].tolist() == pytest.approx([1.1547, -1.1547, 0, 0], abs=1e-4)
    by_batch = NormalizedReturn("group", "batch", correction=0)(two_tasks())
    assert not torch.allclose(credit[:4], by_batch[:4])


def test_the_scale_of_one_task_is_nothing_to_another_nor_to_its_own_advantages():
    part = NormalizedReturn("group", "domain", correction=0, eps=0.0)
    torch.testing.assert_close(part(two_tasks(10.0)), part(two_tasks()))


def test_a_task_of_equal_rewards_has_no_advantage():
    assert NormalizedReturn("group", "domain", correction=0)(two_tasks(0.0))[4:].tolist() == [0, 0, 0, 0]
    assert NormalizedReturn("domain", "domain", eps=0.0)(two_tasks(0.0))[4:].tolist() == [0, 0, 0, 0]
