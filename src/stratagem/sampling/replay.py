"""What of past batches is learned from again: some of the last ones, or successes where all fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.masking import only
from stratagem.partition import Partition
from stratagem.parts import Mixed, Replay


@dataclass(frozen=True)
class RecentBatches(Replay):
    """Groups of the last ``batches`` batches, drawn alike and each at most once, beside all of the fresh batch.

    batches: how many past batches are held.
    share: of trajectories that are old, in [0, batches / (batches + 1)]. Beside ``F`` fresh ones it takes
    ``F share / (1 - share)`` old ones, and groups stay whole: their number is rounded up or down at random, so that the
    mean is right. While too few are there, as in the first batches of a run, all of them are taken.

    Raises :class:`InputError` for a share that so few batches cannot make up.
    """

    batches: Annotated[int, Ge(1)] = 2
    share: Annotated[float, Ge(0), Lt(1)] = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.batches / (self.batches + 1)
        if self.share > most:
            raise InputError(
                f"{self.part_name()}.share = {self.share}: with batches = {self.batches} at most "
                f"{most:.3g} of the trajectories can be old"
            )

    def __call__(self, held: Sequence[Experience], fresh: Experience, source: torch.Generator) -> Mixed:
        taken = self._taken(held, fresh, source) if self.share and held else []
        if not taken:
            return Mixed.nothing(fresh)
        x = Experience.concatenate([fresh, *taken])
        return Mixed(x, torch.arange(x.trajectories, device=x.device) >= fresh.trajectories)

    def remember(self, held: Sequence[Experience], fresh: Experience) -> list[Experience]:
        return [*held, fresh][-self.batches :]

    def _taken(self, held: Sequence[Experience], fresh: Experience, source: torch.Generator) -> list[Experience]:
        sizes = torch.cat([x.group_of_trajectory.size() for x in held]).cpu()
        order = torch.randperm(len(sizes), generator=source)
        before = sizes[order].cumsum(0) - sizes[order]
        # One number for all groups: the last one is taken with the probability that makes the mean right.
        edge = before + torch.rand((), dtype=torch.float64, generator=source) * sizes[order]
        taken = torch.zeros(len(sizes), dtype=torch.bool)
        taken[order] = edge < fresh.trajectories * self.share / (1 - self.share)
        by_batch = taken.split([x.groups for x in held])
        chosen = [
            x.select(x.group_of_trajectory.spread(kept.to(x.device))) for x, kept in zip(held, by_batch, strict=True)
        ]
        return [x for x in chosen if x.groups]


@dataclass(frozen=True)
class UniformReplay(Replay):
    """Groups drawn alike, each at most once, from the newest ``capacity`` and the fresh batch, which stands no higher.

    For learners that do not mind who acted. What is learned from has ``groups`` groups, or all there are while there
    are fewer.

    capacity: groups that are held, at least 1.  groups: to learn from, at least 1.
    """

    capacity: Annotated[int, Ge(1)] = 5000
    groups: Annotated[int, Ge(1)] = 32

    def __call__(self, held: Sequence[Experience], fresh: Experience, source: torch.Generator) -> Mixed:
        x = Experience.concatenate([*held, fresh])
        drawn = torch.zeros(x.groups, dtype=torch.bool)
        drawn[torch.randperm(x.groups, generator=source)[: self.groups]] = True
        kept = x.group_of_trajectory.spread(drawn.to(x.device))
        old = torch.arange(x.trajectories, device=x.device) < x.trajectories - fresh.trajectories
        return Mixed(x.select(kept), old[kept])

    def remember(self, held: Sequence[Experience], fresh: Experience) -> list[Experience]:
        # One batch, since a thousand small ones take long to put together.
        x = Experience.concatenate([*held, fresh])
        if x.groups <= self.capacity:
            return [x]
        return [x.select(x.group_of_trajectory.labels >= x.groups - self.capacity)]


@dataclass(frozen=True)
class SuccessReplay(Replay):
    """Where all rollouts of a group fail, an earlier success of the same start state stands in for the first of them.

    So a group that would teach nothing has something to compare with (arXiv 2505.16282). With ``e`` what a rollout is
    worth, a group has failed when ``std e < spread_below`` (of the population) and ``mean e < mean_below``; then one of
    the successes held of its start state (``task_id``) is drawn, each as likely, and the group keeps its size. Where
    none is held the group stays as it is. A rollout is a success when ``e > success_above``; successes are held once
    the batch is mixed, so none is replayed in the batch it was sampled for, and one that was replayed is not held
    again. Demonstrations are neither counted nor held, nor replaced.

    The numbers are those of the released code. Rollouts whose ``e`` is no finite number do not count; a group in which
    fewer than two count is left alone. A start state must come again for any of this to matter: where the task has no
    end of them, name those to train on (``Rollouts.start_states``).

    per_task: successes held of a start state, at least 1; the newest.
    success_above, spread_below, mean_below: the thresholds above, in units of ``e``.
    judged_by: what ``e`` is, the ``reward`` the task pays itself (the first column, before any reward part), or
    ``success``, 0 or 1.
    max_age: how many optimizer steps ago the policy may have sampled what is replayed; None: any number.
    capacity: successes held in all, the newest, at least 1; the default is eight of each of the paper's 128 tasks.
    """

    per_task: Annotated[int, Ge(1)] = 8
    success_above: FiniteFloat = 0.1
    spread_below: Annotated[float, Ge(0)] = 0.05
    mean_below: FiniteFloat = 0.2
    judged_by: Literal["reward", "success"] = "reward"
    max_age: Annotated[int, Ge(0)] | None = None
    capacity: Annotated[int, Ge(1)] = 1024

    def needs(self) -> frozenset[str]:
        read = {"task_id"}
        if self.judged_by == "success":
            read.add("success")
        if self.max_age is not None:
            read.add("version")
        return self.requires | read

    def __call__(self, held: Sequence[Experience], fresh: Experience, source: torch.Generator) -> Mixed:
        chance = torch.rand(fresh.groups, dtype=torch.float64, generator=source).to(fresh.device)
        young = [x for x in (self._young(x, fresh) for x in held) if x.trajectories]
        if not young:
            return Mixed.nothing(fresh)
        stored = Experience.concatenate(young)
        success, known = _drawn(_task(stored), _tasks(fresh), chance)
        group = torch.nonzero(self._failed(fresh) & known).squeeze(1)
        if not len(group):
            return Mixed.nothing(fresh)
        row = torch.arange(fresh.trajectories, device=fresh.device)
        first = fresh.group_of_trajectory.min(row.where(fresh.played(), fresh.trajectories))[group]
        old = torch.zeros(fresh.trajectories, dtype=torch.bool, device=fresh.device)
        old[first] = True
        return Mixed(fresh.with_instead(first, stored.select(success[group])), old)

    def remember(self, held: Sequence[Experience], fresh: Experience) -> list[Experience]:
        worth = self._worth(fresh)
        succeeded = fresh.played() & worth.isfinite() & (worth > self.success_above)
        pieces = [x for x in (*(self._young(x, fresh) for x in held), fresh.select(succeeded)) if x.trajectories]
        if not pieces:
            return []
        x = Experience.concatenate(pieces)
        age = torch.arange(x.trajectories, device=x.device).flip(0)
        kept = Partition.by(_task(x)).rank(age) < self.per_task
        # The newest of those that are kept.
        kept &= kept.flip(0).cumsum(0).flip(0) <= self.capacity
        return [x.select(kept)]

    def _failed(self, x: Experience) -> Bool[Tensor, " groups"]:
        worth = self._worth(x)
        counted = x.played() & worth.isfinite()
        group = x.group_of_trajectory
        count = group.sum(counted)
        mean = group.sum(only(counted, worth)) / count.clamp(min=1)
        squares = only(counted, worth - group.spread(mean)).square()
        spread = (group.sum(squares) / count.clamp(min=1)).sqrt()
        return (count > 1) & (spread < self.spread_below) & (mean < self.mean_below)

    def _worth(self, x: Experience) -> Float[Tensor, " trajectories"]:
        if self.judged_by == "reward":
            # As it is: in a wider type a reward of 0.1 is above a threshold of 0.1.
            return x.returns if x.reward is None else x.reward[:, 0]
        if x.success is None:
            raise ValueError("a replay of successes judged by success needs x.success")
        return x.success.float()

    def _young(self, x: Experience, fresh: Experience) -> Experience:
        """What is not older than ``max_age``."""
        if self.max_age is None:
            return x
        if x.version is None or fresh.version is None:
            raise ValueError("a replay with a maximal age needs x.version")
        age = fresh.version.max() - x.trajectory_of_token.max(x.version)
        return x if bool((age <= self.max_age).all()) else x.select(age <= self.max_age)


def _tasks(x: Experience) -> Int[Tensor, " groups"]:
    if x.task_id is None:
        raise ValueError("a replay of successes needs x.task_id")
    return x.task_id


def _task(x: Experience) -> Int[Tensor, " trajectories"]:
    return x.group_of_trajectory.spread(_tasks(x))


def _drawn(
    held: Int[Tensor, " held"], wanted: Int[Tensor, " groups"], chance: Float[Tensor, " groups"]
) -> tuple[Int[Tensor, " groups"], Bool[Tensor, " groups"]]:
    """For every wanted key the row of one of its equals among those held, and whether there is one."""
    keys, of_key, count = torch.unique(held, return_inverse=True, return_counts=True)
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    number = torch.minimum((chance * count[place]).long(), count[place] - 1)
    rows = of_key.argsort(stable=True)
    return rows[(count.cumsum(0) - count)[place] + number], keys[place] == wanted
