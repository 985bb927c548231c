"""Workers in this process that die when a test says so, and processes of one group, for checks that all of them run."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from stratagem.cluster.environment_host import Call, Host, Reply, WorkerLost
from stratagem.cluster.environment_pool import EnvironmentPool
from stratagem.cluster.environments import RemoteTask
from stratagem.cluster.process_group import Place
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


# ---- groups of processes --------------------------------------------------------------------------------------------

Check = Callable[[Place], Any]


class Failed(AssertionError):
    """What a shard raised, as its traceback."""


def _run(check: Check, place: Place, results: Any) -> None:
    torch.set_num_threads(1)
    try:
        said = True, check(place)
    except BaseException:
        said = False, traceback.format_exc()
    # Pickled plainly: tensors that were sent in shared memory would be gone with the process.
    results.send_bytes(pickle.dumps(said))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_in_shards(check: Check, size: int = 2, timeout: float = 60.0) -> list[Any]:
    """What ``check`` returns in each process; None of one that ended without a word.

    They are forked, so that a check may be a function of the test, and begins with all that is imported.
    """
    context, port = multiprocessing.get_context("fork"), _free_port()
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe(duplex=False)
        place = Place(rank, size, "127.0.0.1", port, timeout=timeout)
        process = context.Process(target=_run, args=(check, place, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        deadline = time.monotonic() + timeout + 60
        said = [_received(pipe, deadline) for pipe in pipes]
    finally:
        for process in processes:
            process.join(timeout=1)
            process.kill()
            process.join()
    broken = [result for result in said if result is not None and not result[0]]
    if broken:
        raise Failed("\n".join(text for _, text in broken))
    return [None if result is None else result[1] for result in said]


def _received(pipe: Any, deadline: float) -> tuple[bool, Any] | None:
    if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise Failed("a shard neither ended nor broke")
    try:
        result: tuple[bool, Any] = pickle.loads(pipe.recv_bytes())
    except EOFError:
        return None
    return result


@pytest.fixture(scope="session")
def in_shards() -> Callable[..., list[Any]]:
    """``in_shards(check, size=2, timeout=60)``: what ``check(place)`` returns in each process of a group."""
    # After a fork it would warn that it was used before.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return run_in_shards


@pytest.fixture
def free_port() -> Callable[[], int]:
    """``free_port()``: one on which nobody listens."""
    return _free_port
