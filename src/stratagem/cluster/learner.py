"""One of the processes that learn: a trainer, and with the first of them all that acts in the world."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import nullcontext

import torch

from stratagem.cluster.process_group import Place
from stratagem.cluster.shard import Job, run_shard
from stratagem.cluster.site import Site
from stratagem.cluster.versions import hello
from stratagem.cluster.world import acting
from stratagem.language.engines import find_device, load_policy
from stratagem.language.policy import LanguagePolicy
from stratagem.language.team import Team
from stratagem.recipe import Recipe
from stratagem.saved import SavedRun
from stratagem.tasks.task import AnyTask, Task
from stratagem.training.loop import Trainer
from stratagem.training.world import World


class Learner:
    """A process of the group that learns, as Ray starts it; all methods but :meth:`run` return at once.

    rank: its number in the group.  size: of the group.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._trainer: Trainer | None = None
        self._stopping = False
        self._reports: list[tuple[int, dict[str, float]]] = []

    def hello(self) -> dict[str, str | int]:
        """Where it runs, and versions."""
        return hello()

    def meeting_point(self) -> tuple[str, int]:
        """An address and a port on this node, where the group may meet."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), int(free.getsockname()[1])

    def run(
        self, saved: SavedRun, recipe: Recipe, task: AnyTask | None, site: Site, meeting_point: tuple[str, int]
    ) -> dict[str, float]:
        """Learn from the newest checkpoint to the end; the metrics of the last step.

        recipe: the one the run began with.  task: one that no specification makes.  meeting_point: of the first.
        """
        # One that a killed driver left behind, or a node that is only thought to be gone, may still be writing.
        with saved.directory.held() if self._rank == 0 else nullcontext():
            return self._run(saved, recipe, task, site, meeting_point)

    def _run(
        self, saved: SavedRun, recipe: Recipe, task: AnyTask | None, site: Site, meeting_point: tuple[str, int]
    ) -> dict[str, float]:
        request, settings = saved.request, saved.settings
        made = saved.task(task)
        assert isinstance(made, Task)
        torch.manual_seed(settings.seed)
        device = find_device(request.device)

        def policy() -> LanguagePolicy | Team:
            return load_policy(request.model, request.precision, request.lora, request.gradient_checkpointing)

        def world(policy: LanguagePolicy | Team) -> World:
            given = request.task if saved.task_is_specified else made
            return acting(request, made, given, policy, site, settings.seed, settings.steps)

        if self._size == 1 and not site.cluster.offload:
            return self._alone(saved, recipe, world(policy().to(device)))
        address, port = meeting_point
        nccl = device.type == "cuda"
        # Ray shows each process its own GPUs alone.
        place = Place(self._rank, self._size, address, port, "nccl" if nccl else "gloo", "cuda:0" if nccl else "cpu")
        job = Job(
            recipe,
            settings,
            saved.directory.path,
            policy,
            world,
            sinks=lambda _: saved.sinks(saved.reached),
            progress=self._progress,
            started=self._started,
            resume=True,
            offload=site.cluster.offload,
        )
        return run_shard(place, job)

    def _alone(self, saved: SavedRun, recipe: Recipe, world: World) -> dict[str, float]:
        sinks = saved.sinks(saved.reached)
        trainer = Trainer(recipe, world, saved.directory, saved.settings, sinks, self._progress)
        try:
            trainer.resume(saved.checkpoint())
            self._started(trainer)
            return trainer.run()
        finally:
            trainer.close()
            world.close()

    def _started(self, trainer: Trainer) -> None:
        self._trainer = trainer
        if self._stopping:
            trainer.stop()

    def reports(self, after: int) -> list[tuple[int, dict[str, float]]]:
        """Metrics of the steps behind this one."""
        return [report for report in self._reports if report[0] > after]

    def stop(self) -> None:
        """Save and end after the present optimizer step."""
        self._stopping = True
        if self._trainer is not None:
            self._trainer.stop()

    def _progress(self, step: int, metrics: Mapping[str, float]) -> None:
        self._reports.append((step, dict(metrics)))
