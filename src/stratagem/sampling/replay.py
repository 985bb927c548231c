"""What of past batches is learned from again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Replay


@dataclass(frozen=True)
class RecentBatches(Replay):
    """Groups of the last ``batches`` batches, drawn alike and each at most once, beside all of the fresh batch.

    share: of trajectories that are old, in [0, batches / (batches + 1)]. Beside ``F`` fresh ones it takes
    ``F share / (1 - share)`` old ones, and groups stay whole: their number is rounded up or down at random, so that the
    mean is right. While too few are there, as in the first batches of a run, all of them are taken.

    Raises :class:`InputError` for a share that so few batches cannot make up.
    """

    share: Annotated[float, Ge(0), Lt(1)] = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.batches / (self.batches + 1)
        if self.share > most:
            raise InputError(
                f"{self.part_name()}.share = {self.share}: with batches = {self.batches} at most "
                f"{most:.3g} of the trajectories can be old"
            )

    def __call__(self, past: Sequence[Experience], fresh: Experience, source: torch.Generator) -> list[Experience]:
        if self.share == 0 or not past:
            return []
        sizes = torch.cat([x.group_of_trajectory.size() for x in past]).cpu()
        order = torch.randperm(len(sizes), generator=source)
        before = sizes[order].cumsum(0) - sizes[order]
        # One number for all groups: the last one is taken with the probability that makes the mean right.
        edge = before + torch.rand((), dtype=torch.float64, generator=source) * sizes[order]
        taken = torch.zeros(len(sizes), dtype=torch.bool)
        taken[order] = edge < fresh.trajectories * self.share / (1 - self.share)
        by_batch = taken.split([x.groups for x in past])
        chosen = [
            x.select(x.group_of_trajectory.spread(kept.to(x.device))) for x, kept in zip(past, by_batch, strict=True)
        ]
        return [x for x in chosen if x.groups]
