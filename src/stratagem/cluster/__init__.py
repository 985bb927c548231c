"""Training on Ray: environments in workers."""

from __future__ import annotations

from stratagem.cluster.environment_pool import EnvironmentPool
from stratagem.cluster.environments import RemoteTask, remote

__all__ = ["EnvironmentPool", "RemoteTask", "remote"]
