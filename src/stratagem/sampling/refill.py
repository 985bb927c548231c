"""Groups rolled out until a sampler has kept as many as it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience
from stratagem.sampling.samplers import Rollouts


@dataclass(frozen=True, eq=False)
class Kept:
    """What a sampler kept.

    rounds: what came of every round, and which of its groups were kept; without rounds in which every episode was lost.
    figures: what the sampler's curriculum has to say.
    """

    rounds: list[tuple[Experience, Bool[Tensor, " groups"]]]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def x(self) -> Experience | None:
        """The kept groups, perhaps none; None when every episode of every round was lost."""
        pieces = [x if bool(keep.all()) else x.select(x.group_of_trajectory.spread(keep)) for x, keep in self.rounds]
        if len(pieces) < 2:
            return pieces[0] if pieces else None
        return Experience.concatenate(pieces)

    @property
    def metrics(self) -> dict[str, float]:
        """Groups kept and rejected, and the figures of the curriculum."""
        kept = sum(int(keep.sum()) for _, keep in self.rounds)
        drawn = sum(len(keep) for _, keep in self.rounds)
        return {"groups/kept": float(kept), "groups/rejected": float(drawn - kept), **self.figures}


def kept_groups(sampler: Rollouts, roll: Callable[[int, int], Experience | None], step: int = 0) -> Kept:
    """Roll out until ``prompts_per_step`` groups are kept, in at most ``refill_rounds`` rounds after the first.

    A curriculum is told of every round before the next one begins, with all groups of it.

    roll: so many fresh groups, given the number of the round, from 0; None when every episode of theirs was lost.
    step: of the batch.
    """
    rounds, missing = [], sampler.prompts_per_step
    for number in range(sampler.refill_rounds + 1):
        if not missing:
            break
        x = roll(missing, number)
        if x is None:
            continue
        x = sampler.note(x, step)
        keep = sampler.keep(x)
        missing -= int(keep.sum())
        rounds.append((x, keep))
    starts = [x.task_id.cpu() for x, _ in rounds if x.task_id is not None]
    return Kept(rounds, sampler.figures(torch.cat(starts), step) if starts else {})
