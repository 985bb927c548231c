"""One of the processes that learn: a trainer, and with the first of them all that acts in the world."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import torch

from stratagem.cluster.site import Site
from stratagem.saved import SavedRun
from stratagem.tasks.task import AnyTask
from stratagem.training.loop import Trainer


class Learner:
    """A process of the group that learns, as Ray starts it.

    rank: its number in the group.  size: of the group.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._trainer: Trainer | None = None
        self._stopping = False
        self._reports: list[tuple[int, dict[str, float]]] = []

    def rendezvous(self) -> str:
        """Where the group may meet: an address on this node that nobody uses."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        import ray

        return f"tcp://{ray.util.get_node_ip_address()}:{port}"

    def run(self, saved: SavedRun, task: AnyTask | None, site: Site, rendezvous: str) -> dict[str, float]:
        """Learn from the newest checkpoint to the end; the metrics of the last step.

        task: one that no specification makes.  rendezvous: where the group meets.
        """
        torch.manual_seed(saved.settings.seed)
        return {}

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
