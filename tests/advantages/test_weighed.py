"""Weighed groups and the rules that judge them: the worked numbers, all cases of the rules, identities, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import (
    GroupCentered,
    GroupStandardized,
    LeaveOneOut,
    LongerSuccess,
    PassRateBand,
    WeighedGroups,
)
from stratagem.errors import InputError
from stratagem.experience import Experience

TEXT = LongerSuccess(1.01, limit=4000)
VISION = LongerSuccess(0.5, limit=4000, without_failures=False, without_successes=True)


def of(returns: list[float], lengths: list[int], groups: int = 1, **fields) -> Experience:
    """Groups of equal size, of trajectories of these lengths."""
    size = len(returns) // groups
    reward = torch.tensor(returns, dtype=torch.float64)
    return Experience.from_lengths(lengths, [1] * len(lengths), [size] * groups, reward=reward, **fields)


def by_trajectory(found: torch.Tensor, x: Experience) -> list[float]:
    return found[x.trajectory_of_token.first()].tolist()


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("longest", "weight"), [(300, 1.0), (120, 0.1)])
def test_a_group_counts_in_full_when_its_longest_success_is_longer_than_its_failures(longest, weight):
    x = of([2, 2, -1, -1], [longest, 100, 250, 150])
    expected = [sign * 0.8660254 * weight for sign in (1, 1, -1, -1)]
    assert by_trajectory(WeighedGroups(rule=TEXT)(x), x) == pytest.approx(expected, abs=1e-6)


def test_a_failure_that_was_cut_does_not_count():
    x = of([2, -1, -1], [300, 4000, 100])
    assert LongerSuccess(1.01, limit=3900)(x).tolist() == [True]
    assert LongerSuccess(1.01, limit=4001)(x).tolist() == [False]
    assert LongerSuccess(1.01, limit=4000)(x).tolist() == [True]


def test_the_batch_may_say_itself_what_was_cut():
    x = of([2, -1, -1], [3, 40, 1], truncated=[False, True, False])
    assert LongerSuccess().needs() == {"truncated"}
    assert LongerSuccess(limit=5).needs() == frozenset()
    assert LongerSuccess()(x).tolist() == [True]
    assert LongerSuccess()(x.replace(truncated=torch.zeros(3, dtype=torch.bool))).tolist() == [False]
    with pytest.raises(ValueError, match=r"longer_success without a limit needs x\.truncated"):
        LongerSuccess()(x.replace(truncated=None))


def test_the_two_releases_differ_where_all_are_right_and_where_all_are_wrong():
    right, wrong = of([2.0, 1.5], [10, 20]), of([0.0, 0.4], [10, 20])
    assert (TEXT(right).tolist(), VISION(right).tolist()) == ([True], [False])
    assert (TEXT(wrong).tolist(), VISION(wrong).tolist()) == ([False], [True])
    mixed = of([2.0, 0.0, 2.0, 0.0], [10, 20, 20, 10], groups=2)
    assert TEXT(mixed).tolist() == VISION(mixed).tolist() == [False, True]


def test_failures_that_were_all_cut_are_no_failures():
    x = of([2.0, 0.0], [10, 4000])
    assert (TEXT(x).tolist(), VISION(x).tolist()) == ([True], [False])
    x = of([0.0, 0.1], [4000, 4000])
    assert (TEXT(x).tolist(), VISION(x).tolist()) == ([False], [True])


def test_a_tie_says_no():
    assert TEXT(of([2, 0, 0], [20, 10, 30])).tolist() == [False]
    assert TEXT(of([2, 0, 0], [21, 10, 30])).tolist() == [True]
    # A return at the threshold is a failure.
    assert VISION(of([0.5, 0.4], [1, 1])).tolist() == [True]


def test_lengths_are_those_of_tokens_that_may_train():
    mask = torch.tensor([True, False, False, False, True, True])
    x = of([2, 0], [4, 2])
    assert TEXT(x).tolist() == [True]
    assert TEXT(x.replace(mask=mask)).tolist() == [False]


def test_a_band_holds_groups_at_its_bounds():
    x = of([0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1], [1] * 16, groups=4)
    assert PassRateBand(0.25, 0.75)(x).tolist() == [False, True, True, False]
    assert PassRateBand(0.0, 0.0)(x).tolist() == [True, False, False, False]


# ---- identities -----------------------------------------------------------------------------------------------------

SMALL = {"returns": st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0]), min_size=6, max_size=6)}
LENGTHS = st.lists(st.integers(1, 9), min_size=6, max_size=6)


@settings(max_examples=30, deadline=None)
@given(returns=SMALL["returns"], lengths=LENGTHS)
def test_undamped_it_is_its_base_to_the_last_bit(returns, lengths):
    x = of(returns, lengths, groups=2)
    for base in (GroupStandardized(), LeaveOneOut(), GroupCentered()):
        assert torch.equal(WeighedGroups(base, VISION, others=1.0)(x), base(x))


@settings(max_examples=30, deadline=None)
@given(returns=SMALL["returns"], lengths=LENGTHS, factor=st.integers(2, 50))
def test_the_verdict_does_not_depend_on_the_unit_of_length(returns, lengths, factor):
    x, longer = of(returns, lengths, groups=2), of(returns, [factor * n for n in lengths], groups=2)
    for rule in (TEXT, VISION):
        assert torch.equal(rule(x), rule(longer))


@settings(max_examples=30, deadline=None)
@given(returns=SMALL["returns"], lengths=LENGTHS)
def test_all_of_a_group_is_damped_or_nothing(returns, lengths):
    x = of(returns, lengths, groups=2)
    rule = LongerSuccess(0.5, limit=9)
    weights = torch.where(rule(x), 1.0, 0.1).double()
    expected = GroupCentered()(x) * weights[x.group_of_token.labels]
    torch.testing.assert_close(WeighedGroups(GroupCentered(), rule)(x), expected, rtol=1e-6, atol=0)


def test_a_weight_of_nothing_drops_the_groups_and_rescales_none():
    x = of([2, 0, 2, 0], [3, 4, 4, 3], groups=2)
    found = by_trajectory(WeighedGroups(GroupCentered(), TEXT, others=0.0)(x), x)
    assert found == [0, 0, 1, -1]


def test_promising_groups_may_be_amplified():
    x = of([2, 0, 2, 0], [3, 4, 4, 3], groups=2)
    found = by_trajectory(WeighedGroups(GroupCentered(), TEXT, promising=2.0, others=1.0)(x), x)
    assert found == [1, -1, 2, -2]


def test_it_damps_what_is_damped_already():
    x = of([2, 0], [3, 4])
    twice = WeighedGroups(WeighedGroups(GroupCentered(), TEXT, others=0.5), PassRateBand(0.6, 1.0), others=0.5)
    assert by_trajectory(twice(x), x) == [0.25, -0.25]
    assert WeighedGroups(LeaveOneOut()).least_group() == 2


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_one_alone_has_no_advantage():
    x = of([2.0], [3])
    assert not WeighedGroups(rule=TEXT)(x).any()


@pytest.mark.parametrize("rule", [TEXT, PassRateBand()])
def test_a_return_that_is_no_number_is_refused(rule):
    with pytest.raises(ValueError, match="the return of trajectory 1 is not finite"):
        rule(of([2.0, math.nan], [3, 4]))


def test_wrong_fields_are_named():
    with pytest.raises(InputError, match=r"weighed_groups\.others = 1\.5"):
        WeighedGroups(others=1.5)
    with pytest.raises(InputError, match=r"weighed_groups\.promising = 0\.5"):
        WeighedGroups(promising=0.5)
    with pytest.raises(InputError, match=r"longer_success\.limit = 0"):
        LongerSuccess(limit=0)
    with pytest.raises(InputError, match=r"pass_rate_band\.low = 0\.9: must be at most high = 0\.8"):
        PassRateBand(low=0.9)
