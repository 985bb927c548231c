"""Scale: the same seams on many processes, with Ray."""

from stratagem.cluster.local import LocalWorkers
from stratagem.cluster.pool import EnginePool, TreePool, start_pool
from stratagem.cluster.ray_workers import RayWorkers, ray_workers
from stratagem.cluster.rollout_worker import EngineSpec, RolloutWorker
from stratagem.cluster.settings import PoolSettings
from stratagem.cluster.worker import Worker, Workers

__all__ = [
    "EnginePool",
    "EngineSpec",
    "LocalWorkers",
    "PoolSettings",
    "RayWorkers",
    "RolloutWorker",
    "TreePool",
    "Worker",
    "Workers",
    "ray_workers",
    "start_pool",
]
