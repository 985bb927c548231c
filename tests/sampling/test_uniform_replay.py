from __future__ import annotations

import torch

from stratagem.experience import Experience
from stratagem.sampling import UniformReplay


def batch(first: int, groups: int = 3) -> Experience:
    """Groups of two trajectories; ``episode`` is the number of the group."""
    episodes = torch.arange(first, first + groups).repeat_interleave(2)
    return Experience.from_lengths([1] * 2 * groups, [1] * 2 * groups, [2] * groups, episode=episodes, reward=episodes)


def test_groups_are_drawn_whole_once_each_and_alike() -> None:
    part, held = UniformReplay(capacity=100, groups=4), [batch(0, 6)]
    counts = torch.zeros(9)
    for seed in range(600):
        mixed = part(held, batch(6), torch.Generator().manual_seed(seed))
        drawn = mixed.x.episode[::2]
        assert mixed.x.trajectories == 8 and len(drawn.unique()) == 4
        assert torch.equal(mixed.x.episode[1::2], drawn) and torch.equal(mixed.old[::2], drawn < 6)
        counts[drawn] += 1
    assert float((counts / 600 - 4 / 9).abs().max()) < 0.07


def test_all_there_are_are_learned_from_while_there_are_few() -> None:
    mixed = UniformReplay(groups=32)([], batch(0), torch.Generator().manual_seed(0))
    assert mixed.x.episode.tolist() == [0, 0, 1, 1, 2, 2] and not bool(mixed.old.any())


def test_the_newest_groups_are_held_as_one_batch() -> None:
    part, held = UniformReplay(capacity=5, groups=2), []
    for first in (0, 3, 6):
        held = part.remember(held, batch(first))
    assert len(held) == 1 and held[0].episode[::2].tolist() == [4, 5, 6, 7, 8] and held[0].groups == 5
