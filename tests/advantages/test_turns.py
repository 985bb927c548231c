"""Turn returns compared by turn index and over the batch, against numbers worked by hand."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.advantages import GroupStandardized, StandardizedContext, StandardizedTurnReturn
from stratagem.errors import InputError
from stratagem.experience import Experience

BY_INDEX = StandardizedTurnReturn(eps=0)
BY_BATCH = StandardizedTurnReturn("batch", eps=0)


def dialogues(*rewards: list[float], groups: list[int] | None = None, tokens: int = 1, **fields) -> Experience:
    """One trajectory for each list of turn rewards, all in one group unless sizes of groups are given."""
    flat = [reward for each in rewards for reward in each]
    turns = [len(each) for each in rewards]
    sizes = [len(turns)] if groups is None else groups
    return Experience.from_lengths([tokens] * len(flat), turns, sizes, turn_reward=torch.tensor(flat), **fields)


def test_two_dialogues_of_three_turns_worked_by_hand():
    # Returns (2, 1, 1) and (1, 1, 1): in turn 1 mean 1.5 and std 1 / sqrt(2); over the batch mean 7/6, std 1 / sqrt(6).
    x = dialogues([1.0, 0, 1], [0.0, 0, 1])
    half = math.sqrt(0.5)
    assert BY_INDEX(x).tolist() == pytest.approx([half, 0, 0, -half, 0, 0])
    low = -math.sqrt(6) / 6
    assert BY_BATCH(x).tolist() == pytest.approx([5 * -low, low, low, low, low, low])


def test_rewards_are_discounted_by_turn():
    # 0.5 + 0.9 * 0 + 0.81 * 1 = 1.31; alone in its group a trajectory shows its returns as they are.
    x = dialogues([0.5, 0, 1])
    found = StandardizedTurnReturn(discount=0.9, alone="return")(x)
    assert found.tolist() == pytest.approx([1.31, 0.9, 1.0])


def test_with_the_outcome_alone_every_turn_has_the_groups_credit():
    x = dialogues([0.0, 0, 1], [0.0, 0, 0], [0.0, 0, 0.5], [2.0], [1.0], groups=[3, 2], tokens=2)
    torch.testing.assert_close(StandardizedTurnReturn()(x), GroupStandardized()(x))


def test_without_turn_rewards_the_return_is_earned_in_the_last_turn():
    x = Experience.from_lengths([1] * 4, [2, 2], [2], reward=[1.0, 0.0])
    assert BY_INDEX(x).tolist() == pytest.approx([math.sqrt(0.5)] * 2 + [-math.sqrt(0.5)] * 2)


@pytest.mark.parametrize(("alone", "expected"), [("zero", 0.0), ("return", 3.0)])
def test_a_turn_that_only_one_trajectory_reached_gets_what_alone_says(alone, expected):
    x = dialogues([0.0, 3.0], [1.0], [5.0, 2.0], [1.0, 2.0], groups=[2, 2])
    advantage = StandardizedTurnReturn(alone=alone)(x)
    assert advantage[1].item() == expected
    # Returns 3 and 1 differ in the first turn, as usual; a compared turn of equal returns is worth nothing.
    assert advantage[[0, 2]].tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], abs=1e-5)
    assert advantage[[4, 6]].tolist() == [0.0, 0.0]


def test_a_lone_turn_may_be_compared_with_the_batch_instead():
    x = dialogues([0.0, 3.0], [1.0], [5.0, 2.0], [1.0, 2.0], groups=[2, 2])
    found = StandardizedTurnReturn(alone="batch", eps=0)(x)
    lone = torch.tensor([False, True, False, False, False, False, False])
    assert torch.equal(found[lone], BY_BATCH(x)[lone])
    assert torch.equal(found[~lone], BY_INDEX(x)[~lone])


def test_groups_of_one_are_all_alone():
    x = dialogues([1.0, 2.0], [4.0], groups=[1, 1])
    assert StandardizedTurnReturn()(x).tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(StandardizedTurnReturn(alone="batch", eps=0)(x), BY_BATCH(x))
    assert StandardizedTurnReturn(alone="return")(x).tolist() == [3.0, 2.0, 4.0]


def test_only_the_part_that_would_say_nothing_of_a_lone_trajectory_needs_two():
    assert StandardizedTurnReturn().least_group() == 2
    assert StandardizedTurnReturn(alone="batch").least_group() == 1
    assert StandardizedTurnReturn(alone="return").least_group() == 1
    assert StandardizedTurnReturn("batch").least_group() == 1


lengths = st.lists(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5), min_size=2, max_size=6)


@settings(deadline=None)
@given(lengths)
def test_credit_adds_up_to_nothing_over_whatever_is_compared(rewards):
    x = dialogues(*rewards)
    assert StandardizedTurnReturn("batch")(x).sum().item() == pytest.approx(0, abs=1e-4)
    index = x.trajectory_of_turn.position()
    credit = StandardizedTurnReturn()(x)
    for place in range(max(map(len, rewards))):
        assert credit[index == place].sum().item() == pytest.approx(0, abs=1e-4)


def test_a_reward_for_merely_being_there_counts_by_place_over_the_batch_and_not_by_index():
    x = dialogues(*[[1.0] * 5] * 3)
    assert StandardizedTurnReturn()(x).tolist() == [0.0] * 15
    over_batch = BY_BATCH(x).view(3, 5)
    assert torch.equal(over_batch[0], over_batch[1])
    assert bool((over_batch[0].diff() < 0).all()) and over_batch[0, 2].item() == 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_everybody_earns_in_a_turn_counts_over_the_batch_and_not_by_index(place):
    rewards = torch.tensor([[1.0, 0.5, 2.0], [0.0, 0.25, -1.0], [3.0, 1.0, 0.0]])
    more = rewards.clone()
    more[:, place] += 8
    plain, shifted = dialogues(*rewards.tolist()), dialogues(*more.tolist())
    torch.testing.assert_close(BY_INDEX(shifted), BY_INDEX(plain))
    # What is earned in the last turn raises all returns alike, so over the batch it drops out, too.
    assert torch.allclose(BY_BATCH(shifted), BY_BATCH(plain)) == (place == 2)


def test_every_token_gets_its_turns_credit_and_turns_without_tokens_count():
    x = Experience.from_lengths([2, 0, 1, 3], [2, 2], [2], turn_reward=[1.0, 0.0, 0.0, 1.0])
    # Returns (1, 0) and (1, 1): only the second turns differ, the first of which has no token to tell.
    assert BY_INDEX(x).tolist() == pytest.approx([0, 0, 0] + [math.sqrt(0.5)] * 3)


def test_an_empty_batch_and_an_empty_trajectory_are_no_trouble():
    empty = Experience.from_lengths([], [], [], turn_reward=torch.zeros(0))
    short = Experience.from_lengths([1], [1, 0], [2], turn_reward=[1.0])
    for part in (BY_INDEX, BY_BATCH, StandardizedTurnReturn(alone="return"), StandardizedTurnReturn(alone="batch")):
        assert part(empty).tolist() == []
        assert bool(part(short).isfinite().all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_is_named(bad):
    x = dialogues([0.0, 0.0], [0.0, bad])
    with pytest.raises(ValueError, match=f"turn 1 of trajectory 1 has reward {bad}"):
        BY_BATCH(x)


@pytest.mark.parametrize("wrong", [{"discount": 1.1}, {"among": "trajectory"}, {"alone": "mean"}, {"eps": -1.0}])
def test_a_wrong_field_is_named(wrong):
    with pytest.raises(InputError, match=f"standardized_turn_return.{next(iter(wrong))}"):
        StandardizedTurnReturn(**wrong)


# ---- among the turns of a group -------------------------------------------------------------------------------------


def outcomes(lengths: list[int], groups: list[int], rewards: list[float], **fields: Any) -> Experience:
    """Trajectories of so many turns of one token, rewarded at the end."""
    return Experience.from_lengths([1] * sum(lengths), lengths, groups, reward=torch.tensor(rewards), **fields)


def test_the_reward_of_a_turn_is_the_last_ones_discounted_by_the_turns_to_come():
    x = outcomes([3, 1], [2], [1.0, 1.0])
    assert x.discounted_returns(0.5).tolist() == [0.25, 0.5, 1.0, 1.0]


def test_turns_of_a_group_are_compared_whatever_their_index():
    x = outcomes([2, 1, 2, 1], [2, 2], [1.0, 1.0, 0.0, 0.0])
    found = StandardizedTurnReturn("group", discount=0.5, eps=0)(x)
    torch.testing.assert_close(found, torch.tensor([-1.154701, 0.577350, 0.577350, 0, 0, 0]), atol=1e-6, rtol=0)


def test_a_long_trajectory_weighs_more_unless_trajectories_count_the_same():
    x = outcomes([4, 1], [2], [0.0, 1.0])
    by_turn = StandardizedTurnReturn("group", eps=0)(x)
    torch.testing.assert_close(by_turn, torch.tensor([-0.447214] * 4 + [1.788854]), atol=1e-6, rtol=0)
    # Weights 1/4 and 1: mean 1/2, variance (1/4 + 1/4) / (2 - (4/16 + 1) / 2) = 4/11.
    each = StandardizedTurnReturn("group", each="trajectory", eps=0)(x)
    torch.testing.assert_close(each, torch.tensor([-1.0] * 4 + [1.0]) * (11 / 16) ** 0.5)
    population = StandardizedTurnReturn("group", each="trajectory", correction=0, eps=0)(x)
    torch.testing.assert_close(population, torch.tensor([-1.0] * 4 + [1.0]))


@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("among", ["group", "batch"])
def test_weights_of_trajectories_as_long_as_each_other_change_nothing(among, correction):
    source = torch.Generator().manual_seed(0)
    x = outcomes([3] * 8, [4, 4], torch.rand(8, generator=source).tolist())
    plain = StandardizedTurnReturn(among, 0.7, correction=correction)
    torch.testing.assert_close(plain.replace(each="trajectory")(x), plain(x))


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_equal_returns_have_exactly_no_credit_however_trajectories_weigh(eps):
    x = outcomes([3, 1, 7, 1], [3, 1], [0.1, 0.1, 0.1, 0.3])
    assert StandardizedTurnReturn("group", each="trajectory", eps=eps)(x).tolist() == [0.0] * 12


def test_a_turn_that_broke_the_format_earns_nothing():
    x = outcomes([3, 1], [2], [1.0, 1.0], turn_well_formed=[True, False, True, True])
    found = StandardizedTurnReturn("group", discount=0.5, malformed="zero", eps=0)(x)
    worth = torch.tensor([0.25, 0.0, 1.0, 1.0])
    torch.testing.assert_close(found, (worth - worth.mean()) / worth.std())
    plain = StandardizedTurnReturn("group", discount=0.5)
    assert torch.equal(plain(x), plain(x.replace(turn_well_formed=None)))
    # Where nobody says, all are.
    unknown = x.replace(turn_well_formed=None)
    assert torch.equal(plain.replace(malformed="zero")(unknown), plain(unknown))


def test_trajectories_cannot_weigh_the_same_among_turns_of_one_index():
    with pytest.raises(InputError, match=r"standardized_turn_return\.each = trajectory: must be turn"):
        StandardizedTurnReturn(each="trajectory")
    assert StandardizedTurnReturn("group").least_group() == 1


def test_four_million_tokens_take_a_moment():
    source = torch.Generator().manual_seed(0)
    lengths = torch.full((64_000,), 62)
    turns = torch.full((4096,), 15)
    turns[: 64_000 - 15 * 4096] += 1
    x = Experience.from_lengths(lengths, turns, [16] * 256, reward=torch.rand(4096, generator=source))
    assert x.group_of_token.count == 256
    part = StandardizedTurnReturn("group", 0.9, each="trajectory", malformed="zero")
    part(x)
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        part(x)
        taken.append(time.perf_counter() - begin)
    # Under 50 ms on an idle core; the machine may be busy.
    assert min(taken) < 0.25


def test_conversations_of_one_number_are_compared_among_the_trajectories_that_came_to_them():
    x = dialogues(
        [0.0, 1.0, 1.0, 4.0],
        [0.0, 0.0, 0.0],
        [0.5, 1.0, 2.0],
        turn_context=torch.tensor([0, 1, 1, 2, 0, 1, 1, 0, 1, 2]),
        turn_role=torch.tensor([0, 1, 1, 1, 0, 1, 1, 0, 1, 1]),
    )
    zero, one, two = (
        (v - v.mean()) / v.std()
        for v in (torch.tensor([0.0, 0.0, 0.5]), torch.tensor([2.0, 0.0, 1.0]), torch.tensor([4.0, 2.0]))
    )
    expected = [zero[0], one[0], one[0], two[0], zero[1], one[1], one[1], zero[2], one[2], two[1]]
    torch.testing.assert_close(StandardizedContext(eps=0)(x), torch.stack(expected))
    of_role = torch.stack([e * (r == 1) for e, r in zip(expected, x.turn_role.tolist(), strict=True)])
    torch.testing.assert_close(StandardizedContext(role=1, eps=0)(x), of_role)
    assert StandardizedContext(role=1).needs() == {"turn_role"} and not StandardizedContext().needs()
    with pytest.raises(ValueError, match=r"needs x\.turn_role"):
        StandardizedContext(role=1)(x.replace(turn_role=None))


def test_without_contexts_a_trajectory_is_one_conversation_and_one_alone_has_no_credit():
    x = dialogues([1.0, 0.0], [0.0], [2.0, 1.0])
    torch.testing.assert_close(StandardizedContext()(x), GroupStandardized()(x))
    assert not StandardizedContext()(dialogues([1.0, 3.0], [5.0], groups=[1, 1])).any()
    with pytest.raises(ValueError, match="must be finite"):
        StandardizedContext()(dialogues([1.0, math.nan]))
