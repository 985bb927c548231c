"""Advantages that compare halves of a group: numbers worked by hand, identities, directions, and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupHalves
from stratagem.errors import InputError
from stratagem.experience import Experience

ACROSS, WITHIN = GroupHalves(), GroupHalves(across=0.0)


def of(returns: list[float], entropy: list[float], group: int | None = None, **fields) -> Experience:
    """Groups of trajectories of one token."""
    size = group or len(returns)
    return Experience.from_lengths(
        [1] * len(returns),
        [1] * len(returns),
        [size] * (len(returns) // size),
        reward=torch.tensor(returns, dtype=torch.float64),
        entropy=torch.tensor(entropy, dtype=torch.float64),
        **fields,
    )


def of_lengths(returns: list[float], lengths: list[int], **fields) -> Experience:
    """One group of trajectories of these lengths."""
    reward = torch.tensor(returns, dtype=torch.float64)
    return Experience.from_lengths(lengths, [1] * len(lengths), [len(lengths)], reward=reward, **fields)


def close(found: torch.Tensor, expected: list[float]) -> None:
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


# ---- by hand --------------------------------------------------------------------------------------------------------

HAND = of([1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])


def test_each_half_is_held_against_the_other_one():
    close(ACROSS(HAND), [0, -1, 0.5, 0.5])


def test_and_against_itself():
    close(WITHIN(HAND), [0.5, -0.5, 0, 0])


def test_half_of_both_is_the_centered_reward():
    close(GroupHalves(across=0.5)(HAND), [0.25, -0.75, 0.25, 0.25])


@pytest.mark.parametrize("entropy", [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
def test_neither_end_of_the_metric_is_preferred(entropy):
    x = of([0, 0, 1, 1], entropy)
    close(ACROSS(x), [-1, -1, 1, 1])
    close(WITHIN(x), [0, 0, 0, 0])


def test_the_odd_one_is_in_the_high_half():
    x = of([1, 0, 1], [0.3, 0.1, 0.2])
    close(ACROSS(x), [1, -1, 1])
    close(WITHIN(x), [0, 0, 0])


def test_a_reward_counts_less_in_the_half_that_is_not_favored():
    x = of([1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])
    close(GroupHalves(worth=0.5)(x), [0.5 - 1, -1, 1 - 0.25, 1 - 0.25])
    close(GroupHalves(worth=0.5, favored="low")(x), [1 - 0.5, -0.5, 0.5 - 0.5, 0.5 - 0.5])


def test_among_equal_returns_the_favored_half_wins_and_within_halves_nothing_changes():
    x = of([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4])
    close(GroupHalves(worth=0.5)(x), [-0.5, -0.5, 0.5, 0.5])
    close(GroupHalves(worth=0.5, across=0.0)(x), [0, 0, 0, 0])


def test_the_offset_is_between_the_halves():
    close(GroupHalves(offset=0.1)(HAND), [-0.1, -1.1, 0.6, 0.6])
    close(GroupHalves(offset=0.1, across=0.0)(HAND), [0.5, -0.5, 0, 0])


def test_the_weight_may_be_the_mean_return_of_the_batch_or_what_it_lacks():
    close(GroupHalves(across="accuracy")(HAND), [0.125, -0.875, 0.375, 0.375])
    close(GroupHalves(across="error")(HAND), [0.375, -0.625, 0.125, 0.125])
    # Of the whole batch, not of each group.
    x = of([1, 0, 1, 1, 0, 0, 0, 1], [0.1, 0.2, 0.3, 0.4] * 2, group=4)
    assert torch.equal(GroupHalves(across="accuracy")(x), GroupHalves(across=0.5)(x))


# ---- metrics --------------------------------------------------------------------------------------------------------


def test_entropy_is_a_mean_over_the_tokens_of_a_trajectory_and_not_over_its_turns():
    # Means 0.5 and 0.4 over tokens; over turns 0.45 and 0.55 would put them the other way round.
    x = Experience.from_lengths(
        [3, 1, 1, 1],
        [2, 2],
        [2],
        reward=torch.tensor([1.0, 0.0], dtype=torch.float64),
        entropy=torch.tensor([0.6, 0.6, 0.6, 0.2, 0.8, 0.0], dtype=torch.float64),
    )
    found = GroupHalves(worth=0.0)(x)
    close(found, [1, 1, 1, 1, -1, -1])
    # Only the favored half, which is the first trajectory, counts its reward in full.
    close(GroupHalves(worth=0.0, favored="low")(x), [0] * 6)


def test_length_counts_the_tokens_that_may_train():
    mask = torch.tensor([True, False, False, True, True])
    assert GroupHalves("length", worth=0.0)(of_lengths([1, 0], [3, 2])).tolist()[::3] == [1, -1]
    assert GroupHalves("length", worth=0.0)(of_lengths([1, 0], [3, 2], mask=mask)).tolist()[::3] == [0, 0]


def test_masked_tokens_say_nothing_of_entropy_whatever_they_hold():
    fields = {
        "mask": torch.tensor([True, False, True, False]),
        "entropy": torch.tensor([0.2, math.nan, 0.3, -math.inf]),
    }
    close(GroupHalves(worth=0.0)(of_lengths([0, 1], [2, 2], **fields)), [-1, -1, 1, 1])


def test_a_trajectory_without_a_token_that_may_train_has_the_lowest_entropy():
    x = of_lengths([0, 1], [1, 1], mask=[False, True], entropy=[9.0, 0.3])
    close(GroupHalves(worth=0.0)(x), [-1, 1])


def test_equal_values_keep_the_order_of_the_batch():
    equal, ordered = of([1, 0, 1, 1], [0.3] * 4), GroupHalves("order")
    assert torch.equal(ACROSS(equal), ordered(HAND))


# ---- identities -----------------------------------------------------------------------------------------------------

RETURNS = st.lists(st.floats(-5, 5), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)
@given(returns=RETURNS, seed=st.integers(0, 1000))
def test_halves_add_up_to_the_centered_reward_by_their_sizes(returns, seed):
    entropy = torch.rand(len(returns), generator=torch.Generator().manual_seed(seed)).tolist()
    x = of(returns, entropy)
    size, low = len(returns), len(returns) // 2
    high = torch.tensor(entropy).argsort(stable=True).argsort() >= low
    others = torch.where(high, low / size, (size - low) / size)
    found = others * ACROSS(x) + (1 - others) * WITHIN(x)
    torch.testing.assert_close(found, GroupCentered()(x), rtol=0, atol=1e-6)
    assert float(WITHIN(x).sum()) == pytest.approx(0, abs=1e-9)
    if size % 2 == 0:
        assert float(ACROSS(x).sum()) == pytest.approx(0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(value=st.floats(-5, 5), size=st.integers(1, 7))
def test_equal_returns_have_no_advantage_at_all(value, size):
    x = of([value] * size, [0.1 * n for n in range(size)])
    for across in (0.0, 0.3, 1.0):
        assert not GroupHalves(across=across)(x).any()


@pytest.mark.parametrize("size", [4, 8])
def test_a_metric_that_says_nothing_leaves_a_multiple_of_the_centered_reward(size):
    returns = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)[:size]
    draws = 20_000
    entropy = torch.rand(draws * size, generator=torch.Generator().manual_seed(0))
    x = of(returns.tolist() * draws, entropy.tolist(), group=size)
    centered = returns - returns.mean()
    for part, factor in ((ACROSS, size / (size - 1)), (WITHIN, (size - 2) / (size - 1))):
        found = part(x).view(draws, size).mean(0)
        torch.testing.assert_close(found, factor * centered, rtol=0, atol=0.015)


def test_groups_do_not_see_each_other():
    first, second = of([1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]), of([0, 3, 1, 0], [0.9, 0.2, 0.8, 0.1])
    both = of([1, 0, 1, 1, 0, 3, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.9, 0.2, 0.8, 0.1], group=4)
    assert torch.equal(ACROSS(both), torch.cat([ACROSS(first), ACROSS(second)]))


def test_interleaved_groups_are_the_same_groups():
    x = of([1, 0, 1, 1, 0, 3, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.9, 0.2, 0.8, 0.1], group=4)
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    assert torch.equal(ACROSS(x.select(order)), ACROSS(x)[order])


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_one_alone_gets_nothing():
    assert ACROSS(of([3.0], [0.1])).tolist() == [0]
    assert GroupHalves(worth=0.5, offset=1.0)(of([3.0], [0.1])).tolist() == [0]
    assert ACROSS.least_group() == 2


def test_an_entropy_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"x\.entropy: turn 1"):
        ACROSS(of([1, 0], [0.1, math.nan]))
    with pytest.raises(ValueError, match=r"needs x\.entropy"):
        ACROSS(of_lengths([1, 0], [1, 2]))


def test_returns_that_are_no_shares_are_no_weight():
    with pytest.raises(ValueError, match=r"group_halves\.across = accuracy: the mean return, 2,"):
        GroupHalves(across="accuracy")(of([1, 3], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("field", "value"), [("across", 1.5), ("across", "often"), ("worth", -0.1), ("metric", "size")]
)
def test_wrong_fields_are_named(field, value):
    with pytest.raises(InputError, match=rf"group_halves\.{field} = "):
        GroupHalves(**{field: value})


def test_entropies_are_needed_where_they_are_the_metric():
    assert GroupHalves().needs() == {"entropy"}
    assert GroupHalves("length").needs() == frozenset()
