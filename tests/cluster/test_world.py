"""The world of a run on a cluster: what its options mean for the engines."""

from __future__ import annotations

from stratagem.cluster import Cluster, PoolSettings
from stratagem.cluster.world import pool_settings


def test_options_of_the_cluster_reach_the_engines():
    cluster = Cluster(rollout_workers=4, slice_tokens=8, silence=12.0, restarts=7)
    assert pool_settings(cluster, 256, 1) == PoolSettings(64, slice_tokens=8, timeout=12.0, most_restarts=7)
    assert pool_settings(cluster, 256, 2).most_running == 128, "two members of a team have two workers each"
    assert pool_settings(cluster, 3, 1).most_running == 1
