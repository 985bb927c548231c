"""A batch in pieces that fit into one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stratagem.experience import Experience
from stratagem.partition import Partition


def microbatches(x: Experience, tokens: int | None, shuffle: str = "trajectories") -> list[Experience]:
    """``x`` in pieces of at most ``tokens`` positions, each remembering the whole; ``[x]`` without a bound.

    A piece is at least one trajectory (with ``shuffle = "groups"``, one group), so one that is longer makes a piece of
    its own.
    """
    if tokens is None or x.inputs is None:
        return [x]
    unit = units(x, shuffle)
    sizes = _filled_up(unit.sum(x.inputs.lengths).tolist(), tokens)
    if len(sizes) < 2:
        return [x]
    trajectories = [int(sizes_of.sum()) for sizes_of in unit.size().split(sizes)]
    rows = torch.argsort(unit.labels, stable=True)
    return [x.microbatch(chosen) for chosen in rows.split(trajectories)]


def units(x: Experience, shuffle: str) -> Partition:
    """Trajectories by what must stay together in a piece of the batch: their group, or each for itself."""
    return x.group_of_trajectory if shuffle == "groups" else Partition.singletons(x.trajectories, x.device)


def _filled_up(lengths: Sequence[int], bound: int) -> list[int]:
    """How many trajectories go into each piece when every piece takes as many as fit."""
    sizes: list[int] = []
    room = 0
    for length in lengths:
        if not sizes or length > room:
            sizes.append(0)
            room = bound
        sizes[-1] += 1
        room -= length
    return sizes
