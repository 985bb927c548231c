"""A Ray cluster of several nodes on this machine, of which one can leave."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.chaos import processes
from benchmarks.chaos.runs import ENVIRONMENT


class Nodes:
    """Nodes with one processor each, so that every process of a run is on a node of its own; the head has none."""

    def __init__(self, cluster: Any, members: list[Any]) -> None:
        self._cluster, self._members = cluster, members

    @property
    def address(self) -> str:
        """Where a run finds the cluster."""
        return str(self._cluster.address)

    def having(self, kind: str) -> list[int]:
        """Numbers of the nodes on which there is an actor of this class."""
        return [number for number, node in enumerate(self._members) if processes.actors(_raylet(node), kind)]

    def remove(self, number: int) -> None:
        """Let a node vanish with all that runs on it."""
        self._cluster.remove_node(self._members.pop(number), allow_graceful=False)


@contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster of a head and so many nodes, gone at the end of the block."""
    from ray.cluster_utils import Cluster

    os.environ |= ENVIRONMENT  # Which nodes hand on to the processes of a run.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        members = [cluster.add_node(num_cpus=1, wait=False) for _ in range(count)]
        cluster.wait_for_nodes()
        yield Nodes(cluster, members)
    finally:
        cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
