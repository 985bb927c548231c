"""Which trajectories reach the learner."""

from __future__ import annotations

from stratagem.experience import Experience
from stratagem.sampling import AboveReturn


def test_trajectories_at_or_above_the_threshold_are_selected():
    x = Experience.from_lengths([1] * 3, [1] * 3, [3], reward=[0.5, 1.0, 2.0])
    assert AboveReturn(1.0)(x).tolist() == [False, True, True]
