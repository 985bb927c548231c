"""Which old groups come back, and how many; which successes, and where."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import RecentBatches, SuccessReplay
from stratagem.seeding import generator


def batch(groups: int, size: int = 2, first: int = 0) -> Experience:
    """Groups of ``size`` trajectories of one token, numbered from ``first`` on."""
    count = groups * size
    return Experience.from_lengths(
        [1] * count, [1] * count, [size] * groups, task_id=torch.arange(first, first + groups),
        behavior_logp=-torch.ones(count), reward=torch.zeros(count),
    )  # fmt: skip


def taken(replay: RecentBatches, past: list[Experience], fresh: Experience, step: int) -> list[int]:
    mixed = replay(past, fresh, generator(0, "replay", step))
    assert torch.equal(mixed.old, torch.arange(mixed.x.trajectories) >= fresh.trajectories)
    return mixed.x.task_id[fresh.groups :].tolist()


def test_old_trajectories_have_their_share_on_average():
    replay, past, fresh = RecentBatches(2, 0.4), [batch(8), batch(8, first=8)], batch(8)
    counts = torch.tensor([len(taken(replay, past, fresh, step)) for step in range(3000)])
    # Eight fresh groups ask for 5 1/3 old ones.
    assert set(counts.tolist()) == {5, 6}
    assert float(counts.float().mean()) == pytest.approx(16 / 3, abs=0.03)
    assert float((counts / (8 + counts)).mean()) == pytest.approx(0.4, abs=0.015)


def test_old_groups_are_alike_and_come_whole_and_once():
    replay, past, fresh = RecentBatches(2, 0.5), [batch(6, 3), batch(6, 3, first=6)], batch(6, 3)
    drawn = [taken(replay, past, fresh, step) for step in range(2000)]
    assert all(len(set(tasks)) == len(tasks) == 6 for tasks in drawn)
    often = torch.bincount(torch.tensor(drawn).flatten(), minlength=12) / len(drawn)
    assert float((often - 0.5).abs().max()) < 0.05
    x = replay(past, fresh, generator(0, "replay", 0)).x
    assert x.group_of_trajectory.size().tolist() == [3] * x.groups


def test_groups_of_unequal_size_have_their_share_too():
    sizes = [1, 4, 2, 8, 3]
    past = Experience.from_lengths(
        [1] * 18, [1] * 18, sizes, reward=torch.zeros(18), task_id=torch.arange(5), behavior_logp=-torch.ones(18)
    )
    replay, fresh = RecentBatches(1, 0.25), batch(6, 3)
    counts = [sum(sizes[task] for task in taken(replay, [past], fresh, step)) for step in range(4000)]
    assert sum(counts) / len(counts) == pytest.approx(6, abs=0.15)


def test_what_is_not_there_yet_is_not_asked_for():
    replay, fresh = RecentBatches(2, 0.6), batch(8)
    assert replay([], fresh, generator(0)).x is fresh
    # Twelve groups would make the share; there are eight.
    assert sorted(taken(replay, [batch(8)], fresh, 0)) == list(range(8))
    assert RecentBatches(2, 0.0)([batch(8)], fresh, generator(0)).x is fresh


def test_the_last_batches_are_held():
    replay, held = RecentBatches(2, 0.5), []
    for first in (0, 8, 16):
        held = replay.remember(held, batch(8, first=first))
    assert [int(x.task_id[0]) for x in held] == [8, 16]


def test_a_share_that_so_few_batches_cannot_make_up_is_refused():
    assert RecentBatches(1, 0.5).share == 0.5
    with pytest.raises(InputError, match=r"recent_batches\.share = 0\.6: with batches = 1 at most 0\.5"):
        RecentBatches(1, 0.6)
    for wrong in ({"batches": 0}, {"share": -0.1}, {"share": 1.0}):
        with pytest.raises(InputError):
            RecentBatches(**wrong)


# ---- successes ------------------------------------------------------------------------------------------------------


def rolled(worth: list[list[float]], tasks: list[int], first: int = 0, version: int = 0, **fields: Any) -> Experience:
    """Groups of trajectories of one token that are worth so much; actions are numbers from ``first`` on."""
    flat = [value for group in worth for value in group]
    count = len(flat)
    return Experience.from_lengths(
        [1] * count, [1] * count, [len(group) for group in worth], task_id=torch.tensor(tasks),
        action=torch.arange(first, first + count), behavior_logp=-torch.ones(count), reward=torch.tensor(flat),
        version=torch.full((count,), version), **fields,
    )  # fmt: skip


def replayed(replay: SuccessReplay, held: list[Experience], fresh: Experience, step: int = 0) -> list[int]:
    """The actions of the batch; those of replayed trajectories are negative."""
    mixed = replay(held, fresh, generator(0, "replay", step))
    assert mixed.x.task_id.tolist() == fresh.task_id.tolist()
    assert torch.equal(mixed.x.group_of_trajectory.labels, fresh.group_of_trajectory.labels)
    return [-int(a) if old else int(a) for a, old in zip(mixed.x.action, mixed.old, strict=True)]


FAILED = [0.0] * 8
ONE = rolled([[1.0, 0.0]], [7], first=90)


def test_a_success_stands_in_for_the_first_rollout_of_a_group_that_failed():
    replay = SuccessReplay()
    held = replay.remember([], ONE)
    mixed = replay(held, rolled([FAILED], [7]), generator(0))
    assert mixed.x.reward.squeeze(1).tolist() == [1.0, *FAILED[1:]] and mixed.old.tolist() == [True] + [False] * 7
    advantage = GroupStandardized(eps=0)(mixed.x)
    torch.testing.assert_close(advantage, torch.tensor([2.474874] + [-0.353553] * 7), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("worth", "fails"),
    [
        ([0.1] + [0.0] * 7, True),  # deviation 0.0331, mean 0.0125
        ([1.0] + [0.0] * 7, False),
        ([0.19] * 8, True),
        ([0.2] * 8, False),
        ([1.0] * 8, False),
        ([0.16] + [0.0] * 7, False),  # deviation 0.0529, though the mean is low
    ],
)
def test_a_group_has_failed_when_deviation_and_mean_are_both_low(worth, fails):
    replay = SuccessReplay()
    found = replayed(replay, replay.remember([], ONE), rolled([worth], [7]))
    assert found == ([-90, *range(1, 8)] if fails else list(range(8)))


def test_only_successes_of_the_same_start_state_come_back():
    replay = SuccessReplay()
    held = replay.remember([], rolled([[1.0, 0.0], [0.0, 1.0]], [3, -5], first=90))
    found = replayed(replay, held, rolled([[0.0, 0.0]] * 4, [9, -5, 3, 4], first=1))
    assert found == [1, 2, -93, 4, -90, 6, 7, 8]


def test_the_newest_eight_of_a_start_state_are_held_and_what_is_at_the_threshold_is_none():
    replay, held = SuccessReplay(), []
    for number in range(9):
        held = replay.remember(held, rolled([[1.0, 0.1, math.nan, math.inf]], [0], first=10 * number))
    [x] = held
    assert x.action.tolist() == [10 * number for number in range(1, 9)]
    both = replay.remember(held, rolled([[0.5, 1.0], [0.5]], [0, 4], first=200))[0]
    assert both.action.tolist() == [30, 40, 50, 60, 70, 80, 200, 201, 202]


def test_no_more_than_the_capacity_is_held_and_it_is_the_newest():
    replay, held = SuccessReplay(per_task=2, capacity=3), []
    for number in range(4):
        held = replay.remember(held, rolled([[1.0, 1.0, 1.0], [1.0]], [0, number + 1], first=10 * number))
    assert held[0].action.tolist() == [31, 32, 33]


def test_every_success_held_is_as_likely():
    replay = SuccessReplay()
    held = replay.remember([], rolled([[1.0] * 5, [1.0] * 3], [0, 1], first=90))
    fresh = rolled([[0.0, 0.0], [0.0, 0.0]], [1, 0])
    drawn = torch.tensor([replayed(replay, held, fresh, step) for step in range(2000)])
    for column, first, count in ((0, 95, 3), (2, 90, 5)):
        often = torch.bincount(-drawn[:, column] - first, minlength=count) / len(drawn)
        assert len(often) == count and float((often - 1 / count).abs().max()) < 0.05


def test_a_start_state_that_comes_twice_in_a_batch_may_have_one_success_twice():
    replay = SuccessReplay()
    found = replayed(replay, replay.remember([], ONE), rolled([[0.0, 0.0], [0.0, 0.0]], [7, 7], first=1))
    assert found == [-90, 2, -90, 4]


def test_without_a_success_held_the_batch_is_the_fresh_one():
    replay, fresh = SuccessReplay(), rolled([FAILED], [7])
    assert replay([], fresh, generator(0)).x is fresh
    assert replay(replay.remember([], rolled([[1.0]], [8])), fresh, generator(0)).x is fresh
    assert replay.remember([], fresh) == []


def test_what_is_worth_no_number_does_not_count_and_a_group_of_one_that_does_is_left_alone():
    replay = SuccessReplay()
    held = replay.remember([], ONE)
    assert replayed(replay, held, rolled([[math.nan, 0.0, 0.0]], [7], first=1)) == [-90, 2, 3]
    assert replayed(replay, held, rolled([[math.nan, math.nan, 0.0]], [7], first=1)) == [1, 2, 3]
    assert replayed(replay, held, rolled([[0.0]], [7], first=1)) == [1]


def test_a_success_that_is_too_old_neither_comes_back_nor_stays():
    replay = SuccessReplay(max_age=3)
    held = replay.remember([], ONE)
    assert replayed(replay, held, rolled([[0.0, 0.0]], [7], version=3)) == [-90, 1]
    late = rolled([[0.0, 0.0]], [7], version=4)
    assert replayed(replay, held, late) == [0, 1]
    assert replay.remember(held, late) == []
    with pytest.raises(ValueError, match=r"x\.version"):
        replay(held, late.replace(version=None), generator(0))


def test_demonstrations_are_neither_counted_nor_held_nor_replaced():
    replay = SuccessReplay()
    shown = torch.tensor([True, False, False])
    assert replay.remember([], rolled([[1.0, 0.0, 0.0]], [7], demonstrated=shown)) == []
    held = replay.remember([], rolled([[1.0, 1.0, 0.0]], [7], first=90, demonstrated=shown))
    found = replayed(replay, held, rolled([[1.0, 0.0, 0.0]], [7], first=1, demonstrated=shown))
    assert found == [1, -91, 3]


def test_success_may_judge_where_rewards_have_another_scale():
    worth, success = [[-3.0, -1.0], [-9.0, -9.0]], torch.tensor([False, True, False, False])
    replay = SuccessReplay(judged_by="success")
    assert replay.needs() == {"behavior_logp", "task_id", "success"}
    held = replay.remember([], rolled(worth, [0, 1], first=90, success=success))
    fresh = rolled([[-5.0, -2.0]], [0], first=1, success=torch.tensor([False, False]))
    assert replayed(replay, held, fresh) == [-91, 2]
    with pytest.raises(ValueError, match=r"x\.success"):
        replay.remember([], ONE)


def test_the_tasks_own_reward_judges_whatever_else_is_paid():
    replay = SuccessReplay()
    paid = ONE.replace(
        reward=torch.tensor([[1.0, -5.0], [0.0, 5.0]]), reward_names=("reward", "form"), reward_weights=(1.0, 1.0)
    )
    assert replay.remember([], paid)[0].action.tolist() == [90]


def test_fields_out_of_range_and_a_batch_without_start_states_are_refused():
    for wrong in ({"per_task": 0}, {"capacity": 0}, {"spread_below": -1.0}, {"max_age": -1}, {"mean_below": math.nan}):
        with pytest.raises(InputError, match=rf"success_replay\.{next(iter(wrong))}"):
            SuccessReplay(**wrong)
    with pytest.raises(ValueError, match=r"x\.task_id"):
        SuccessReplay().remember([], ONE.replace(task_id=None))
