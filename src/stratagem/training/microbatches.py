"""A batch in pieces that fit into one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stratagem.experience import Experience


def microbatches(x: Experience, tokens: int | None) -> list[Experience]:
    """``x`` in pieces of at most ``tokens`` positions, each remembering the whole; ``[x]`` without a bound.

    A piece is at least one trajectory, so one that is longer makes a piece of its own.
    """
    if tokens is None or x.inputs is None:
        return [x]
    sizes = _filled_up(x.inputs.lengths.tolist(), tokens)
    if len(sizes) < 2:
        return [x]
    rows = torch.arange(x.trajectories, device=x.device)
    return [x.microbatch(chosen) for chosen in rows.split(sizes)]


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
