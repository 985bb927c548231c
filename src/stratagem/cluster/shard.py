"""One process of a sharded run: the same trainer on every shard, and one run directory, written by the first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stratagem.cluster.process_group import Place, ShardGroup, joined
from stratagem.cluster.sharded_policy import shard
from stratagem.cluster.shared_world import SharedWorld
from stratagem.language.policy import LanguagePolicy
from stratagem.language.team import Team
from stratagem.recipe import Recipe
from stratagem.shards import is_divided, whole
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import Checkpoint, RunDirectory
from stratagem.training.sinks import Sink
from stratagem.training.world import World

AnyPolicy = LanguagePolicy | Team


@dataclass(frozen=True)
class Job:
    """What a group of shards is to do; every shard is given an equal one.

    recipe: as written; it is not adapted to the world.  settings: of the run.
    path: of the run directory, which exists and which shard 0 has access to.
    policy: builds the policy, in main memory or on the device of the shard; the weights are those of shard 0.
    world: builds what shard 0 acts in with this policy, whose weights are still whole, so that engines can copy them.
    sinks, progress: of shard 0.
    started: told of the trainer before the first step, on every shard, so that signals can ask it to stop: all shards
    stop after the optimizer step in which one of them was asked.
    resume: from the newest checkpoint, if there is one.  offload: as in :func:`shard`.
    """

    recipe: Recipe
    settings: Settings
    path: Path
    policy: Callable[[], AnyPolicy]
    world: Callable[[AnyPolicy], World]
    sinks: Callable[[RunDirectory], tuple[Sink, ...]] = lambda run: ()
    progress: Callable[[int, Mapping[str, float]], None] | None = None
    started: Callable[[Trainer], None] = lambda trainer: None
    resume: bool = False
    offload: bool = False


def run_shard(place: Place, job: Job) -> dict[str, float]:
    """Be one shard of a run until it ends; returns the metrics of the last step, but for times the same on all shards.

    The numbers are those of the same run in one process up to rounding, and so are the files: a run may be begun in one
    way and go on in the other. Numbers that depend on a clock differ between shards, so a schedule that reads
    ``timing/`` or ``memory/`` must not be used.

    Raises what the run raises in one process, on all shards (an error of shard 0 alone, such as a task's, reaches the
    others), and :class:`BrokenRunError` when other shards are lost.
    """
    with joined(place) as group, tempfile.TemporaryDirectory() as silent, ExitStack() as stack:
        policy, worlds = job.policy(), list[World]()

        def build() -> None:
            worlds.append(job.world(policy))
            stack.callback(worlds[0].close)

        group.lead(build)
        shard(policy, group, offload=job.offload)
        world = SharedWorld(worlds[0] if group.leads else None, policy, group)
        run = SharedRunDirectory(job.path if group.leads else Path(silent), group)
        sinks, progress = (job.sinks(RunDirectory(job.path)), job.progress) if group.leads else ((), None)
        trainer = ShardTrainer(job.recipe, world, run, job.settings, sinks, progress, group=group)
        stack.callback(trainer.close)
        if job.resume:
            trainer.resume(run.newest())
        job.started(trainer)
        return trainer.run()


class ShardTrainer(Trainer):
    """The trainer of one shard: it stops when any of them was asked to."""

    def __init__(self, *arguments: Any, group: ShardGroup) -> None:
        super().__init__(*arguments)
        self._group = group

    def _stops(self) -> bool:
        return self._group.any(self._stopping)


@dataclass(frozen=True)
class SharedRunDirectory(RunDirectory):
    """A run directory that shard 0 writes and reads for all; an error there is one of all shards.

    path: of the directory on shard 0, on the others of one that nobody looks at.  group: the shards.
    """

    group: ShardGroup

    @property
    def _own(self) -> RunDirectory:
        return RunDirectory(self.path)

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        self.group.lead(lambda: self._own.write_text(name, text))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file. Raises :class:`InputError` when it is missing or broken."""
        return self.group.lead(lambda: self._own.read_json(name))

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one line to a JSON-lines file."""
        self.group.lead(lambda: self._own.append(name, row))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Complete lines of a JSON-lines file."""
        return self.group.lead(lambda: self._own.rows(name))

    def forget_after(self, name: str, step: int) -> None:
        """Drop the rows of steps after ``step``."""
        self.group.lead(lambda: self._own.forget_after(name, step))

    def save(self, name: str, checkpoint: Checkpoint, keep: int = 2) -> Path:
        """Write a checkpoint as one process would: divided tensors are brought together, for shard 0 alone to keep."""
        tensors = {group: self._brought_together(checkpoint.tensors[group]) for group in sorted(checkpoint.tensors)}
        return self.group.lead(lambda: self._own.save(name, Checkpoint(checkpoint.state, tensors), keep))

    def _brought_together(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        kept = {}
        for name, tensor in sorted(tensors.items()):
            if self.group.leads:
                kept[name] = whole(tensor).cpu() if is_divided(tensor) else tensor
            elif is_divided(tensor):
                whole(tensor)
        return kept

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return self.group.lead(lambda: self._own.checkpoints())

    def load(self) -> Checkpoint:
        """The newest complete checkpoint, sent to all shards whole; each keeps its part once it is restored."""
        return self.group.lead(lambda: self._own.load())

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint, None when there is none."""
        return self.load() if self.checkpoints() else None

    def sweep(self) -> None:
        """Remove what a kill left half-written."""
        self.group.lead(lambda: self._own.sweep())
