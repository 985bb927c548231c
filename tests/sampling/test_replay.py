"""Which old groups come back, and how many."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.sampling import RecentBatches
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
