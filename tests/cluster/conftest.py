"""Workers in this process that die when a test says so."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from stratagem.cluster.environment_host import Call, Host, Reply, WorkerLost
from stratagem.cluster.environment_pool import EnvironmentPool
from stratagem.cluster.environments import RemoteTask
from stratagem.sampling import Rollouts
from stratagem.tasks.task import Task

Dies = Callable[[int, int], bool]
"""Whether a worker dies: its number, and how often that number was asked to play before, whichever worker it was."""


class FakeWorkers:
    """Starts workers in this process, each with a host of its own. dies: before or after the calls, by turns."""

    def __init__(self, task: Task, timeout: float, dies: Dies) -> None:
        self.task, self.timeout, self.dies = task, timeout, dies
        self.asked: Counter[int] = Counter()
        self.started: Counter[int] = Counter()
        self.batches: list[list[Call]] = []
        self.refuses: Callable[[int], bool] = lambda number: False
        self.living: list[FakeWorker] = []

    def __call__(self, number: int) -> FakeWorker:
        self.started[number] += 1
        if self.refuses(number):
            raise OSError("no such node")
        self.living.append(FakeWorker(self, number))
        return self.living[-1]


class FakeWorker:
    def __init__(self, workers: FakeWorkers, number: int) -> None:
        self.workers, self.number = workers, number
        self.host: Host | None = Host(workers.task, workers.timeout)

    def play(self, calls: Sequence[Call]) -> tuple[list[Reply], float]:
        if self.host is None:
            raise WorkerLost("it was killed")
        self.workers.batches.append(list(calls))
        asked = self.workers.asked[self.number]
        self.workers.asked[self.number] += 1
        dies = self.workers.dies(self.number, asked)
        if dies and asked % 2:
            raise WorkerLost("killed before the calls")
        replies = self.host.play(calls)
        if dies:
            raise WorkerLost("killed behind the calls")
        return replies

    def kill(self) -> None:
        # The environments of a process that dies are not closed: they are gone.
        if self.host is not None:
            self.host, host = None, self.host
            host._watch.close()
            self.workers.living.remove(self)


@pytest.fixture
def in_workers() -> Iterator[Callable[..., Any]]:
    """``in_workers(task, workers=2, timeout=30.0, dies=never, most_restarts=3)``: the task, its pool, its workers."""
    pools: list[EnvironmentPool] = []

    def make(
        task: Task,
        workers: int = 2,
        timeout: float = 30.0,
        dies: Dies = lambda number, asked: False,
        most_restarts: int = 3,
    ) -> tuple[RemoteTask, EnvironmentPool, FakeWorkers]:
        fakes = FakeWorkers(task, timeout, dies)
        pools.append(EnvironmentPool(fakes, workers, timeout, most_restarts))
        return RemoteTask(task, pools[-1]), pools[-1], fakes

    yield make
    for pool in pools:
        pool.close()


def same(one: Any, other: Any) -> None:
    """Assert that two batches are equal in all that they hold."""
    assert (one is None) == (other is None)
    if one is None:
        return
    for field in dataclasses.fields(one):
        mine, yours = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, torch.Tensor):
            torch.testing.assert_close(mine, yours, rtol=0, atol=0, equal_nan=True)
        elif dataclasses.is_dataclass(mine) and not hasattr(mine, "labels"):
            same(mine, yours)
        elif hasattr(mine, "labels"):
            assert mine.labels.tolist() == yours.labels.tolist()
        elif not isinstance(mine, dict):
            assert mine == yours


def counted(collected: Any) -> dict[str, float]:
    """Metrics that are no times."""
    return {name: value for name, value in collected.metrics.items() if not name.startswith("timing/")}


@pytest.fixture
def batches(make_world: Callable[..., Any]) -> Callable[..., list[Any]]:
    """``batches(task, **options)``: what two steps of a world collect in a task."""

    def collect(task: Task, sampler: Any = None, **options: Any) -> list[Any]:
        world = make_world(task, **options)
        collected = []
        for step in range(2):
            world.serve(step)
            collected.append(world.collect(sampler or Rollouts(prompts_per_step=3, group_size=4), step))
        return collected

    return collect


@pytest.fixture
def agree() -> Callable[[Sequence[Any], Sequence[Any]], None]:
    """Asserts that batches, and what is said of them, are equal."""

    def check(ones: Sequence[Any], others: Sequence[Any]) -> None:
        for one, other in zip(ones, others, strict=True):
            same(one.x, other.x)
            assert one.tokens == other.tokens and one.samples == other.samples
            assert counted(one) == pytest.approx(counted(other), nan_ok=True)

    return check
