"""What the first learner of a run acts in: a task, with engines and environments in other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor

from stratagem.cluster.environment_pool import EnvironmentPool
from stratagem.cluster.environments import remote
from stratagem.cluster.plan import Cluster
from stratagem.cluster.pool import EnginePool, start_pool
from stratagem.cluster.ray_actors import ray_workers
from stratagem.cluster.rollout_worker import EngineSpec
from stratagem.cluster.settings import PoolSettings
from stratagem.cluster.site import Site
from stratagem.errors import InputError
from stratagem.language.engine import Engine
from stratagem.language.engines import member_models
from stratagem.language.policy import LanguagePolicy
from stratagem.language.team import Team, TeamEngine
from stratagem.parts import Sampler
from stratagem.readings import ReadsText
from stratagem.recipe import Recipe
from stratagem.tasks.task import Task
from stratagem.training.journal import Journal
from stratagem.training.pipeline import Pipelined
from stratagem.training.world import Collected, Evaluation, Interruptible, Journaling, Policy, TextWorld, World
from stratagem.worlds import Request, language_world

CALLS = 64
"""Calls of environments in other processes that are under way at once; those of one worker travel together."""


class ClusterWorld:
    """A world whose engines and environments are in other processes, which end with it; it adds what they report.

    ``workers/utilization``: mean share of the time since the last batch in which rollout workers generated, and
    ``workers/utilization_min`` the least.  ``workers/restarts``: of rollout workers so far.  ``workers/reread``: tokens
    read again because of them.  ``weights/sent``: bytes of the last update.  ``timing/generate``: seconds that a batch
    took rollout workers to generate, on average, and ``timing/transport`` those for which requests and what was
    generated were on their way.  ``environments/...``: as the pool of environment workers has them, if there is one.
    """

    def __init__(self, world: World, pools: list[EnginePool], environments: EnvironmentPool | None) -> None:
        self.world, self.task_name = world, world.task_name
        self._pools, self._environments = pools, environments

    @property
    def policy(self) -> Policy:
        """What acts and learns."""
        return self.world.policy

    def adapt(self, recipe: Recipe) -> Recipe:
        """As the world does."""
        return self.world.adapt(recipe)

    def serve(self, version: int) -> None:
        """Let all rollout workers act with the policy's present weights."""
        self.world.serve(version)

    def collect(self, sampler: Sampler, step: int) -> Collected:
        """What the world collects, with the figures of the workers."""
        before = self._seconds()
        collected = self.world.collect(sampler, step)
        generate, transport = (after - earlier for after, earlier in zip(self._seconds(), before, strict=True))
        collected.metrics.update(self._figures(), **{"timing/generate": generate, "timing/transport": transport})
        return collected

    def evaluate(self, episodes: int, mode: Literal["sampled", "greedy"], first: int = 0) -> Evaluation:
        """As the world does."""
        return self.world.evaluate(episodes, mode, first)

    def _seconds(self) -> tuple[float, float]:
        """Means over all workers; where each model of a team has a pool of its own, over pools."""
        generating, on_the_way = zip(*(pool.seconds() for pool in self._pools), strict=True)
        return sum(generating) / len(generating), sum(on_the_way) / len(on_the_way)

    def _figures(self) -> dict[str, float]:
        shares = [share for pool in self._pools for share in pool.utilization()]
        figures = {
            "workers/utilization": sum(shares) / len(shares),
            "workers/utilization_min": min(shares),
            "workers/restarts": float(sum(pool.restarts for pool in self._pools)),
            "workers/reread": float(sum(pool.reread for pool in self._pools)),
            "weights/sent": float(sum(pool.sent_bytes for pool in self._pools)),
        }
        return figures if self._environments is None else figures | self._environments.metrics()

    # ---- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As the world has it: workers hold nothing that cannot be made again."""
        return self.world.state_dict()

    def load_state_dict(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """As the world does."""
        self.world.load_state_dict(tensors, plain)

    def keep(self, journal: Journal) -> None:
        """As the world does."""
        assert isinstance(self.world, Journaling)
        self.world.keep(journal)

    def read_by(self, readers: Sequence[ReadsText]) -> None:
        """As the world does."""
        assert isinstance(self.world, TextWorld)
        self.world.read_by(readers)

    def interrupt(self) -> None:
        """As the world does."""
        assert isinstance(self.world, Interruptible)
        self.world.interrupt()

    def close(self) -> None:
        """End the workers."""
        self.world.close()
        for pool in self._pools:
            pool.shut_down()
        if self._environments is not None:
            self._environments.close()


def acting(
    request: Request, task: Task, given: str | Task, policy: LanguagePolicy | Team, site: Site, seed: int, batches: int
) -> World:
    """The world of a run's policy, with workers in the places of ``site``, and batches collected ahead as it says.

    given: the task as workers are to have it, its specification where there is one.  batches: of the run.
    """
    cluster, environments, threads = site.cluster, None, 1
    if cluster.environment_workers:
        threads = min(request.concurrency, CALLS)
        task, environments = remote(
            given,
            cluster.environment_workers,
            timeout=request.timeout,
            most_restarts=cluster.restarts,
            options=lambda number: site.options("environment worker", number),
        )
    pools, engine = _engines(request, policy, site)
    world = language_world(task, policy, engine, seed, request, threads)
    return Pipelined(ClusterWorld(world, pools, environments), cluster.staleness, batches)


def _engines(request: Request, policy: LanguagePolicy | Team, site: Site) -> tuple[list[EnginePool], Engine]:
    """A pool of engines for every member of the policy, and the engine that they are together.

    Raises :class:`InputError` for more members than rollout workers: each member's engines are workers of its own.
    """
    cluster, models = site.cluster, member_models(request.model)
    if cluster.rollout_workers < len(models):
        raise InputError(
            f"cluster rollout_workers = {cluster.rollout_workers}: must be at least {len(models)}, one for each model "
            "of the team"
        )
    settings = pool_settings(cluster, request.concurrency, len(models))
    pools = []
    for member, model in enumerate(models):
        places = range(member, cluster.rollout_workers, len(models))
        options = partial(_options, site, places)
        spec = EngineSpec(model, request.engine, request.precision, request.device)
        pools.append(start_pool(spec, ray_workers(options), len(places), settings))
    return pools, TeamEngine(policy, pools) if isinstance(policy, Team) else pools[0]


def pool_settings(cluster: Cluster, concurrency: int, members: int) -> PoolSettings:
    """What a cluster's options mean for the engines of each of so many members; they share what may run at once."""
    return PoolSettings(
        most_running=max(1, concurrency // (cluster.rollout_workers // members)),
        slice_tokens=cluster.slice_tokens,
        timeout=cluster.silence,
        most_restarts=cluster.restarts,
    )


def _options(site: Site, places: Sequence[int], number: int) -> dict[str, Any]:
    """Of the actor with this number in its pool."""
    return site.options("rollout worker", places[number])
