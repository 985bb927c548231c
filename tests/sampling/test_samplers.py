"""Which groups are worth learning from."""

from __future__ import annotations

import pytest

from stratagem.errors import InputError
from stratagem.experience import Experience
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
    ):
        with pytest.raises(InputError):
            wrong()
