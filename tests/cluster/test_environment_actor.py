"""Environments in Ray actors that are really killed."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stratagem.cluster.environment_host import Answer, Call, Origin, Reply
from stratagem.errors import InputError
from stratagem.sampling import Rollouts
from stratagem.tasks import registry
from stratagem.tasks.key_door import KeyDoorTask
from stratagem.tasks.task import Environment, Observation, Split, Step
from stratagem.watched import CallFailed

ray = pytest.importorskip("ray")

from stratagem.cluster import environment_actor  # noqa: E402  (which needs Ray)
from stratagem.cluster.environments import remote  # noqa: E402

ONE_EACH = Rollouts(prompts_per_step=3, group_size=2, refill_rounds=0)


@dataclass(frozen=True)
class Doomed(KeyDoorTask):
    """Key and door; once, in the third turn of episode 1, something happens to the process. notes: where it says so.

    Episode 99 raises.
    """

    happens: str = "nothing"
    notes: str = ""

    def environment(self, split: Split, index: int) -> Environment:
        inner = super().environment(split, index)
        return _Doomed(self, inner) if index == 1 else _Raising() if index == 99 else inner


class _Raising(Environment):
    def reset(self) -> Observation:
        raise ConnectionError("no reward")

    def step(self, action: str) -> Step:
        raise NotImplementedError


class _Doomed(Environment):
    def __init__(self, task: Doomed, inner: Environment) -> None:
        self.task, self.inner, self.turn = task, inner, 0
        self.note = Path(task.notes)

    def reset(self) -> Observation:
        return self.inner.reset()

    def step(self, action: str) -> Step:
        self.turn += 1
        if self.turn == 3 and not self.note.exists():
            self.note.write_text(str(os.getpid()))
            match self.task.happens:
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "sleeps":
                    time.sleep(600)
                case "stopped":
                    os.kill(os.getpid(), signal.SIGSTOP)
        return self.inner.step(action)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # The workers do not import this file: its classes travel with their code.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, address="local")
    yield
    ray.shutdown()


@pytest.fixture
def far(cluster: None) -> Iterator[Callable[..., Any]]:
    """``far(task, workers, timeout=30.0)``: the task and its pool."""
    pools = []

    def make(task: Any, workers: int, timeout: float = 30.0) -> Any:
        made, pool = remote(task, workers, timeout=timeout)
        pools.append(pool)
        return made, pool

    yield make
    for pool in pools:
        pool.close()


def is_gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.perf_counter() + 20
    while time.perf_counter() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_an_actor_that_is_killed_in_the_middle_of_a_batch_changes_no_episode(far, agree, batches, tmp_path):
    near = batches(registry.make("key_door:max_turns=8"), ONE_EACH)
    task, pool = far(Doomed(max_turns=8, happens="killed", notes=str(tmp_path / "pid")), workers=2)
    agree(batches(task, ONE_EACH, threads=6), near)
    assert pool.counters.restarts == 1 and pool.counters.replayed_steps > 0
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert min(pool.busy) > 0
    environment = task.environment("train", 99)
    with pytest.raises(CallFailed, match=r"^ConnectionError: no reward$"):
        environment.reset()
    environment.close()
    assert pool.counters.restarts == 1


@pytest.mark.slow
@pytest.mark.parametrize("happens", ["sleeps", "stopped"])
def test_an_actor_that_hangs_is_killed_and_only_its_episode_fails(far, batches, tmp_path, monkeypatch, happens):
    monkeypatch.setattr(environment_actor, "GRACE_SECONDS", 2.0)
    sampler = Rollouts(prompts_per_step=3, group_size=1, refill_rounds=0)
    near = batches(registry.make("key_door:max_turns=8"), sampler)
    task, pool = far(Doomed(max_turns=8, happens=happens, notes=str(tmp_path / "pid")), 1, 1.0)
    there = batches(task, sampler, threads=3)
    assert is_gone(int((tmp_path / "pid").read_text()))
    if happens == "sleeps":
        assert there[0].metrics["episodes/failed"] == 1 and pool.counters.hung == 1
        assert there[0].x.trajectories == near[0].x.trajectories - 1
    assert there[1].metrics["episodes/failed"] == 0
    assert pool.counters.replayed > 0 and pool.counters.given_up == 0


@pytest.mark.slow
def test_a_specification_is_read_in_the_workers(far, agree, batches):
    spec = "sokoban:max_turns=4"
    task, _ = far(spec, workers=1)
    agree(batches(task, ONE_EACH, threads=6), batches(registry.make(spec), ONE_EACH))


def test_an_actor_reads_the_specification_and_counts_what_it_did():
    actor = environment_actor.EnvironmentActor("key_door:size=5", 5.0)
    actor.ready()
    calls = [Call(7, "reset", origin=Origin("train", 2)), Call(8, "step", "north", Origin("train", 2), (None, "east"))]
    replies, seconds = actor.play(calls)
    near = registry.make("key_door:size=5").environment("train", 2)
    assert pickle.loads(replies[0].answer.value) == near.reset()
    assert pickle.loads(replies[1].led[1].value) == near.step("east")
    assert pickle.loads(replies[1].answer.value) == near.step("north")
    assert seconds > 0
    assert actor.finished() == 6  # Two were made, two reset, and two steps.
    assert actor.play([Call(7, "close")])[0] == [Reply(Answer(), held=False)]
    with pytest.raises(InputError, match="unknown task 'nothing'"):
        environment_actor.EnvironmentActor("nothing", 1.0).ready()


def test_a_task_that_cannot_be_sent_is_refused(chatter, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"'chatter' cannot be sent to workers .*; give it by its specification"):
        remote(chatter(fault=lambda call, index, turn: lock), 1)


@pytest.mark.slow
def test_a_task_that_cannot_be_made_in_a_worker_is_refused_with_its_words(cluster):
    with pytest.raises(InputError, match="the task cannot be made in a worker: InputError: unknown task 'nothing'"):
        environment_actor.RayWorker("nothing", 1.0, {})
