"""A Ray cluster as a run finds it: connected to, counted, and places on it reserved."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stratagem.cluster.plan import LOCAL, Cluster
from stratagem.errors import BrokenRunError, InputError

PATIENCE = 120.0
"""Seconds to wait for places that a cluster has and others hold."""

KNOCKING = 10.0
"""Seconds a cluster has to take a connection."""

ROLES = ("learner", "rollout worker", "environment worker")


@dataclass(frozen=True)
class Site:
    """Places for the processes of a run, in one placement group.

    cluster: what was asked for.  group: Ray's placement group.  bundles: what each place holds, learners first, then
    rollout workers, then environment workers.
    """

    cluster: Cluster
    group: Any
    bundles: tuple[dict[str, float], ...]

    def options(self, role: str, number: int) -> dict[str, Any]:
        """Ray's options for the actor of this role and number."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = self.place(role, number)
        bundle = self.bundles[place]
        return {
            "num_cpus": bundle["CPU"],
            "num_gpus": bundle.get("GPU", 0.0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, place),
        }

    def place(self, role: str, number: int) -> int:
        """Number of the bundle of the process of this role and number."""
        counts = counted(self.cluster)
        return sum(counts[before] for before in ROLES[: ROLES.index(role)]) + number

    def described(self) -> list[dict[str, Any]]:
        """Every process with its role, number, resources and node, as plain data."""
        import ray
        from ray.util import placement_group_table

        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
        where = placement_group_table(self.group)["bundles_to_node_id"]
        counts = counted(self.cluster)
        return [
            {
                "role": role,
                "number": number,
                "resources": self.bundles[self.place(role, number)],
                "node": nodes.get(where.get(self.place(role, number), ""), "waiting"),
            }
            for role in ROLES
            for number in range(counts[role])
        ]


def counted(cluster: Cluster) -> dict[str, int]:
    """Processes of each role."""
    return dict(zip(ROLES, (cluster.learners, cluster.rollout_workers, cluster.environment_workers), strict=True))


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, connected to the cluster; one that is ``local`` is started, and ends with the block.

    A process that is connected already stays so, and is not asked for another connection.

    Raises :class:`InputError` when Ray is missing, nobody answers at the address, or versions do not go together.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--cluster needs Ray: pip install 'stratagem[cluster]'") from None
    if ray.is_initialized():
        yield ray
        return
    _knock(cluster.address)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address == LOCAL:
        # Places are counted in processors, but two processes can share one.
        cores = max(os.cpu_count() or 1, cluster.processes)
        options |= {"num_cpus": cores, "include_dashboard": False}
    try:
        with _signals_kept():
            ray.init(address=cluster.address, **options)
    except (ConnectionError, TimeoutError, OSError, ValueError) as error:
        raise InputError(f"cluster {cluster.address}: nobody answers there ({_first_line(error)})") from None
    except RuntimeError as error:
        raise InputError(f"cluster {cluster.address}: cannot be joined ({_told(error)})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Give back the handlers of signals that Ray replaces, so that whoever set them still hears of a signal."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if callable(handler):
                    signal.signal(number, handler)


@contextmanager
def reserved(cluster: Cluster, device: str, name: str, patience: float = PATIENCE) -> Iterator[Site]:
    """Places for a run on the cluster this process is connected to, given back at the end of the block.

    Every process gets one processor; learners and rollout workers one GPU each as well, where the cluster has any and
    ``device`` is not ``cpu``.

    Raises :class:`InputError` when the cluster is too small for all, :class:`BrokenRunError` when the places are not
    free within ``patience`` seconds.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    bundles = wanted(cluster, device, ray.cluster_resources())
    group = placement_group([dict(bundle) for bundle in bundles], strategy="PACK", name=name)
    try:
        if not group.wait(patience):
            free = ray.available_resources()
            raise BrokenRunError(
                f"cluster {cluster.address}: no places for {cluster.processes} processes within {patience:g} s; "
                f"{free.get('CPU', 0):g} processors and {free.get('GPU', 0):g} GPUs are free"
            )
        yield Site(cluster, group, bundles)
    finally:
        remove_placement_group(group)


def wanted(cluster: Cluster, device: str, has: Mapping[str, float]) -> tuple[dict[str, float], ...]:
    """What each process needs, of a cluster that has these resources in all. Raises :class:`InputError` for too few."""
    computing = {"CPU": 1.0}
    if device != "cpu" and has.get("GPU", 0) > 0:
        computing["GPU"] = 1.0
    elif device.startswith("cuda"):
        raise InputError(f"cluster {cluster.address}: has no GPU; use --device cpu")
    counts = counted(cluster)
    bundles = tuple(
        {"CPU": 1.0} if role == "environment worker" else dict(computing) for role in ROLES for _ in range(counts[role])
    )
    total: Counter[str] = Counter()
    for bundle in bundles:
        total.update(bundle)
    for resource, name in (("CPU", "processors"), ("GPU", "GPUs")):
        if total[resource] > has.get(resource, 0):
            asked = ", ".join(f"{count} {role}{'s' * (count > 1)}" for role, count in counts.items() if count)
            raise InputError(
                f"cluster {cluster.address}: has {has.get(resource, 0):g} {name}, the run needs {total[resource]:g} "
                f"({asked})"
            )
    return bundles


def _knock(address: str) -> None:
    """Raise :class:`InputError` when an address of the form HOST:PORT takes no connection: Ray tries for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not (separator and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCKING).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"cluster {address}: nobody answers there ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _told(error: RuntimeError) -> str:
    """Ray's complaint in one line: it tells the versions of a mismatch in several."""
    return " ".join(str(error).split())[:300]
