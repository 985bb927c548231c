"""The ledger: each episode that was begun has one fate, and what is wrong is found."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.experience import Experience
from stratagem.sampling import (
    AtTurns,
    Branching,
    Demonstrations,
    DynamicSampling,
    Improving,
    OnlineTree,
    RecentBatches,
    Resampled,
    Rollouts,
)
from stratagem.tasks import registry
from stratagem.training.ledger import PER_GROUP, audit, audit_run, entry, numbers_in, ranges
from stratagem.training.world import Collected

NUMBERS = st.lists(st.integers(-30, 30), unique=True)


@given(NUMBERS)
def test_ranges_are_as_few_as_possible_and_hold_the_numbers(numbers):
    found = ranges(numbers)
    assert numbers_in(found) == sorted(numbers)
    assert all(first <= last for first, last in found)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(found))


def test_a_number_that_comes_twice_is_seen_twice():
    assert numbers_in(ranges([3, 4, 3])) == [3, 3, 4]


def batch(numbers: list[int]) -> Experience | None:
    ones = [1] * len(numbers)
    return Experience.from_lengths(ones, ones, ones, episode=torch.tensor(numbers)) if numbers else None


@given(NUMBERS, st.integers(0, 99), st.booleans())
def test_every_episode_that_was_begun_has_one_fate(begun, chance, learned):
    source = torch.Generator().manual_seed(chance)
    fate = torch.randint(0, 4, (len(begun),), generator=source).tolist()
    failed, rejected, dropped, left = ([n for n, f in zip(begun, fate, strict=True) if f == w] for w in range(4))
    collected = Collected(batch(dropped + left), 0, begun=begun, failed=failed)
    row = entry(collected, batch([*left, 500]) if left else None, learned, measured=[900])
    expected = {"failed": failed, "rejected": rejected, "dropped": dropped, "skipped": left, "measured": [900]}
    if learned:
        del expected["skipped"]
    assert {name: numbers_in(found) for name, found in row["left_out"].items()} == {
        name: sorted(numbers) for name, numbers in expected.items() if numbers
    }
    assert numbers_in(row["learned"]) == (sorted(left) if learned else [])
    assert numbers_in(row.get("replayed", [])) == ([500] if learned and left else [])
    found = audit([{"step": 1, **row}])
    assert found.violation is None and found.begun == len(begun) + 1
    assert found.learned == (len(left) if learned else 0)


def row(step: int, learned: list[int], begun: list[int] | None = None, **left_out: list[int]) -> dict[str, Any]:
    everybody = [*learned, *(n for numbers in left_out.values() for n in numbers)]
    return {
        "step": step,
        "begun": ranges(everybody if begun is None else begun),
        "learned": ranges(learned),
        "left_out": {fate: ranges(numbers) for fate, numbers in left_out.items()},
    }


@pytest.mark.parametrize(
    ("rows", "violation"),
    [
        ([row(1, [0, 1]), row(2, [2])], None),
        ([row(1, [0, 1, 2]), row(2, [1])], "episode 1: learned in step 1 and learned in step 2"),
        ([row(1, [0, 1], [0, 1, 2])], "step 1: the episodes that were begun are not those that had a fate"),
        ([row(1, [0, 1, 2], [0, 1])], "step 1: the episodes that were begun are not those that had a fate"),
        ([row(1, [0], failed=[1]), row(3, [1])], "episode 1: failed in step 1 and learned in step 3"),
        ([row(2, [0]), row(2, [1])], "step 2 follows step 2"),
    ],
)
def test_the_first_violation_is_named(rows, violation):
    assert audit(rows).violation == violation


def test_a_group_nothing_is_known_of_is_missing():
    lost = [row(1, [0, 1]), row(2, [2 * PER_GROUP], failed=[3 * PER_GROUP])]
    assert audit(lost).missing == 1 and not audit(lost).proved
    # Forks have negative numbers, and are not counted through.
    assert audit([row(1, [0, -5 * PER_GROUP])]).proved


SAMPLERS = {
    "rollouts": Rollouts(3, 4),
    "dynamic": DynamicSampling(3, 2),
    "demonstrations": Demonstrations(3),
    "shown": Rollouts(3, 4, demonstrations=2),
    "branching": Branching(3, 2, at=AtTurns(), branches=2, depth=2),
    "branches_only": Branching(3, 2, branches=2, train_roots=False),
    "tree": Branching(3, 2, branches=2, depth=2, together=True),
    "resampled": Resampled(3, 4, resamples=3),
    "online": OnlineTree(3, 4),
}


def fault(call: str, index: int, turn: int) -> None:
    if (7 * index + 3 * turn) % 5 == 0:
        raise RuntimeError("it happens")


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_of_every_sampler_account_for_each_episode_once(make_trainer, make_world, chatter, small, name):
    world = make_world(chatter(fault=fault))
    trainer = make_trainer(small("reinforce").replace(sampler=SAMPLERS[name]), world=world, steps=3)
    collect, arrived = world.collect, list[int]()

    def noted(sampler: Any, step: int) -> Collected:
        collected = collect(sampler, step)
        arrived.extend([] if collected.x is None else collected.x.episode.tolist())
        return collected

    world.collect = noted
    trainer.run()
    assert len(set(arrived)) == len(arrived)
    found = audit_run(trainer.run_directory)
    assert found.proved and found.steps == 3, found
    assert found.learned + found.left_out.get("skipped", 0) + found.left_out.get("dropped", 0) == len(arrived)
    assert found.left_out["failed"] > 0


def test_numbers_stay_apart_when_a_schedule_changes_the_size_of_groups(make_world):
    world, seen = make_world(), list[int]()
    for step, size in enumerate([8, 4, 2, 6]):
        seen += world.collect(Rollouts(2, size), step).x.episode.tolist()
    assert len(set(seen)) == len(seen) == 40


def test_groups_behind_earlier_attempts_are_accounted_for(make_trainer, make_world, make_policy, small):
    task = registry.make("improve:calculator:max_turns=1")
    world = make_world(task, policy=make_policy(context=2048))
    sampler = Improving(3, 3, priority="none", share=0.9)
    trainer = make_trainer(small("grpo").replace(sampler=sampler), world=world, steps=4)
    trainer.run()
    found = audit_run(trainer.run_directory)
    assert found.proved and found.begun == 4 * 9, found


def test_what_a_replay_brings_back_is_not_learned_from_twice(make_trainer, small):
    trainer = make_trainer(small("grpo").replace(replay=RecentBatches()), steps=4)
    trainer.run()
    found = audit_run(trainer.run_directory)
    assert found.proved and found.replayed > 0, found


def test_selections_credit_and_batches_without_signal_leave_episodes_out(make_trainer, make_world, chatter, small):
    recipe = small("grpo", sampler__group_size=2)
    trainer = make_trainer(recipe, world=make_world(chatter(turns=1)), steps=4)
    shape = trainer._shape
    # The first trajectory of a batch goes, and with it its group; the rewards of a whole batch are one.
    trainer._shape = lambda x: shape(x).select(torch.arange(1, x.trajectories))
    trainer.run()
    found = audit_run(trainer.run_directory)
    assert found.proved and found.left_out["dropped"] == 8, found


def test_a_resumed_run_writes_the_rows_after_its_checkpoint_anew(make_trainer, make_world, small, stopped_and_resumed):
    unbroken = make_trainer(small("grpo"), "unbroken", steps=4)
    unbroken.run()
    for within in (False, True):
        broken = make_trainer(small("grpo", optimization__epochs=2), f"broken-{within}", steps=4)
        resumed = stopped_and_resumed(broken, make_world(), 2, within)
        assert resumed.run_directory.rows("episodes.jsonl") == unbroken.run_directory.rows("episodes.jsonl")


def test_worlds_that_do_not_account_for_their_episodes_have_no_ledger(tmp_path: Path):
    from stratagem.run import train

    result = train("grpo", "lab:corridor", steps=2, out=tmp_path / "lab", evaluation_episodes=0)
    assert not (result.directory / "episodes.jsonl").exists()


def test_four_thousand_episodes_a_step_cost_next_to_nothing():
    begun = [group * PER_GROUP + sample for group in range(512) for sample in range(8)]
    collected = Collected(batch(begun), 0, begun=begun, failed=[])
    clock = time.perf_counter()
    for _ in range(10):
        entry(collected, collected.x, True)
    assert time.perf_counter() - clock < 2
