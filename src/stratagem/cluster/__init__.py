"""Runs on Ray: engines, environments and learners in many processes, behind the protocols they have in one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratagem.cluster.environment_pool import EnvironmentPool
    from stratagem.cluster.environments import RemoteTask, remote
    from stratagem.cluster.local import LocalWorkers
    from stratagem.cluster.plan import Cluster
    from stratagem.cluster.pool import EnginePool, TreePool, start_pool
    from stratagem.cluster.ray_actors import RayWorkers, ray_workers
    from stratagem.cluster.rollout_worker import EngineSpec, RolloutWorker
    from stratagem.cluster.settings import PoolSettings
    from stratagem.cluster.worker import Worker, Workers

__all__ = [
    "Cluster",
    "EnginePool",
    "EngineSpec",
    "EnvironmentPool",
    "LocalWorkers",
    "PoolSettings",
    "RayWorkers",
    "RemoteTask",
    "RolloutWorker",
    "TreePool",
    "Worker",
    "Workers",
    "ray_workers",
    "remote",
    "start_pool",
]

_HOMES = {
    "environment_pool": ("EnvironmentPool",),
    "environments": ("RemoteTask", "remote"),
    "local": ("LocalWorkers",),
    "plan": ("Cluster",),
    "pool": ("EnginePool", "TreePool", "start_pool"),
    "ray_actors": ("RayWorkers", "ray_workers"),
    "rollout_worker": ("EngineSpec", "RolloutWorker"),
    "settings": ("PoolSettings",),
    "worker": ("Worker", "Workers"),
}


def __getattr__(name: str) -> Any:
    """The public names, each on first use: a process of one kind needs no model library for what another kind does."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"stratagem.cluster.{module}"), name)
    raise AttributeError(f"module 'stratagem.cluster' has no attribute {name!r}")
