"""Which groups are worth learning from."""

from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.rewards import Correct, Inverted, Majority, RandomSignal
from stratagem.sampling import Demonstrations, DynamicSampling, Rollouts, Segments


def test_dynamic_sampling_keeps_groups_that_disagree():
    x = Experience.from_lengths([1] * 7, [1] * 7, [2, 2, 1, 2], reward=[1.0, 1, 0, 1, 5, 0, 0])
    assert DynamicSampling().keep(x).tolist() == [False, True, False, False]
    assert Rollouts().keep(x).tolist() == [True] * 4


def test_samplers_are_checked_when_built():
    assert Segments().group_size == Demonstrations().group_size == 1
    for wrong in (
        lambda: Segments(group_size=2),
        lambda: Rollouts(top_p=1.5),
        lambda: Rollouts(temperature=0),
        lambda: Rollouts(top_k=-1),
        lambda: Rollouts(similar_states=1.5),
        lambda: Rollouts(similar_states=0),
        lambda: Rollouts(similar_states=0.9, demonstrations=1),
    ):
        with pytest.raises(InputError):
            wrong()


def test_named_start_states_are_gone_through_over_and_over():
    assert [Rollouts(start_states=(4, 1)).start_state(group) for group in range(5)] == [4, 1, 4, 1, 4]
    assert [Rollouts().start_state(group) for group in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="start_states"):
        Rollouts(start_states=(-1,))


def test_dynamic_sampling_compares_by_the_reward_it_is_given():
    x = Experience.from_lengths(
        [1] * 6, [1] * 6, [2, 2, 2], reward=[1.0, 0.5, 1, 1, 0, 1], success=[True, True, True, True, False, True]
    )
    assert DynamicSampling().keep(x).tolist() == [True, False, True]
    assert DynamicSampling(judged_by=Correct()).keep(x).tolist() == [False, False, True]
    assert DynamicSampling(judged_by=Inverted()).keep(x).tolist() == [False, False, True]
    assert "answer" in DynamicSampling(judged_by=Majority()).needs()


def test_a_fair_coin_hardly_ever_loses_a_group_of_sixteen():
    x = Experience.from_lengths([1] * 16_000, [1] * 16_000, [16] * 1000, reward=[0.0] * 16_000)
    x = x.replace(seed=torch.arange(16_000))
    assert not DynamicSampling().keep(x).any()
    # The chance of sixteen equal coins is 2 in 2^16.
    assert int((~DynamicSampling(judged_by=RandomSignal()).keep(x)).sum()) <= 2
