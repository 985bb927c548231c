"""Groups are rolled out until enough are kept, and no longer than allowed."""

from __future__ import annotations

import torch

from stratagem.experience import Experience
from stratagem.sampling import DynamicSampling, kept_groups


def groups(returns: list[list[float]]) -> Experience:
    """One token per trajectory."""
    count = sum(map(len, returns))
    reward = [value for group in returns for value in group]
    return Experience.from_lengths([1] * count, [1] * count, list(map(len, returns)), reward=reward)


EQUAL, MIXED = [1.0, 1.0], [0.0, 1.0]


def test_only_what_is_missing_is_rolled_out_again():
    asked: list[tuple[int, int]] = []
    rounds = [[MIXED, EQUAL, EQUAL], [EQUAL, MIXED], [MIXED]]

    def roll(count: int, number: int) -> Experience:
        asked.append((count, number))
        return groups(rounds[number])

    kept = kept_groups(DynamicSampling(prompts_per_step=3, group_size=2), roll)
    assert asked == [(3, 0), (2, 1), (1, 2)]
    assert kept.x is not None and kept.x.groups == 3 and kept.x.returns.tolist() == [0, 1] * 3
    assert kept.metrics == {"groups/kept": 3.0, "groups/rejected": 3.0}
    assert [keep.tolist() for _, keep in kept.rounds] == [[True, False, False], [False, True], [True]]


def test_rounds_are_up_whether_groups_were_rejected_or_lost():
    sampler = DynamicSampling(prompts_per_step=2, group_size=2, refill_rounds=2)
    rejected = kept_groups(sampler, lambda count, _: groups([EQUAL] * count))
    assert rejected.x is not None and rejected.x.groups == 0
    assert rejected.metrics == {"groups/kept": 0.0, "groups/rejected": 6.0}
    numbers: list[int] = []
    lost = kept_groups(sampler, lambda _, number: numbers.append(number))
    assert lost.x is None and numbers == [0, 1, 2]
    assert lost.metrics == {"groups/kept": 0.0, "groups/rejected": 0.0}


def test_one_round_that_is_kept_whole_is_not_copied():
    x = groups([MIXED, MIXED])
    kept = kept_groups(DynamicSampling(prompts_per_step=2, group_size=2), lambda *_: x)
    assert kept.x is x and torch.equal(kept.rounds[0][1], torch.tensor([True, True]))
