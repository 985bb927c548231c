"""Group-relative advantages against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupStandardized, LeaveOneOut, TokenStandardized
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


# ---- over the tokens of a group -------------------------------------------------------------------------------------


def lengths(*pairs: tuple[int, float], **fields) -> Experience:
    """One group of trajectories of so many tokens with this return."""
    sizes, rewards = zip(*pairs, strict=True)
    return Experience.from_lengths(list(sizes), [1] * len(pairs), [len(pairs)], reward=list(rewards), **fields)


def test_a_short_right_answer_beside_a_long_wrong_one_worked_by_hand():
    # Mean over 40 tokens 1/4, deviation sqrt(3/16).
    credit = TokenStandardized()(lengths((10, 1.0), (30, 0.0)))
    assert credit[:10].tolist() == pytest.approx([1.73205] * 10, abs=1e-4)
    assert credit[10:].tolist() == pytest.approx([-0.57735] * 30, abs=1e-4)
    assert float(credit.double().sum()) == pytest.approx(0.0, abs=1e-4)
    assert float(GroupStandardized(correction=0)(lengths((10, 1.0), (30, 0.0))).sum()) == pytest.approx(-20, abs=1e-3)


def test_a_group_with_too_large_an_advantage_is_standardised_by_trajectories():
    # Over 100 tokens the deviation is 0.0995, and one token would have 9.95.
    pairs = ((1, 1.0), (99, 0.0))
    credit = TokenStandardized()(lengths(*pairs))
    assert (credit[0].item(), credit[1].item()) == pytest.approx((0.70711, -0.70711), abs=1e-4)
    assert TokenStandardized(most=10.0)(lengths(*pairs))[0].item() == pytest.approx(9.9499, abs=1e-2)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=8),
    st.sampled_from([0.0, 5.0]),
)
def test_it_adds_up_to_nothing_over_tokens_or_is_grpo(pairs, most):
    x = lengths(*pairs)
    credit = TokenStandardized(most)(x)
    if most == 0:
        assert torch.equal(credit, GroupStandardized()(x))
    elif float(credit.abs().max()) < 5 and not torch.equal(credit, GroupStandardized()(x)):
        assert float(credit.double().sum()) == pytest.approx(0, abs=1e-3)
    if len({reward for _, reward in pairs}) == 1:
        assert credit.tolist() == [0] * x.tokens


def test_answers_of_equal_length_have_the_population_score_and_masked_tokens_do_not_count():
    same = lengths((4, 1.0), (4, 0.0), (4, 0.0))
    torch.testing.assert_close(TokenStandardized()(same), GroupStandardized(correction=0)(same))
    mask = torch.tensor([True] * 10 + [False] * 5 + [True] * 30)
    credit = TokenStandardized()(lengths((15, 1.0), (30, 0.0), mask=mask))
    assert (credit[0].item(), credit[-1].item()) == pytest.approx((1.73205, -0.57735), abs=1e-4)
    nothing = lengths((2, 1.0), (2, 0.0), mask=torch.zeros(4, dtype=torch.bool))
    assert bool(TokenStandardized()(nothing).isfinite().all())
