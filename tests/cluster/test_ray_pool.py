"""A pool of Ray actors: conformance, killed and hung processes, and one line for what cannot be."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stratagem.cluster import EnginePool, EngineSpec, PoolSettings, ray_workers, start_pool
from stratagem.errors import InputError
from stratagem.language.conformance import EngineConformance, small_policy, texts
from stratagem.language.engine import Completion, Engine, Request, WeightMismatchError
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

CORES = 8


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False, address="local")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """Of a model with other weights than those that are served."""
    return saved(small_policy(9), tmp_path_factory.mktemp("model"))


def saved(policy: LanguagePolicy, folder: Path) -> EngineSpec:
    policy.save(folder)
    return EngineSpec(str(folder), precision="float32", device="cpu")


@pytest.fixture
def start(spec: EngineSpec) -> Iterator[Callable[..., EnginePool]]:
    """``start(policy, count, **settings)``: a pool that serves the policy at version 1."""
    pools: list[EnginePool] = []

    def make(policy: LanguagePolicy, count: int, **settings: Any) -> EnginePool:
        pools.append(start_pool(spec, ray_workers(), count, PoolSettings(**settings)))
        pools[-1].load_weights(policy, 1)
        return pools[-1]

    yield make
    for pool in pools:
        pool.shut_down()


class TestRayPool(EngineConformance):
    limit = 128

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _serving(cls, cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.folder = tmp_path_factory.mktemp("served")
        cls.policy = cls.make_policy()
        cls.engine = cls.build(cls.policy)
        yield
        cls.tear_down(cls.engine)

    @classmethod
    def setup_class(cls) -> None:
        """The engine is built once the cluster runs."""

    @classmethod
    def teardown_class(cls) -> None:
        """And ended before."""

    @classmethod
    def build(cls, policy: LanguagePolicy) -> Engine:
        pool = start_pool(saved(policy, cls.folder), ray_workers(), 2, PoolSettings(max_sessions=64))
        pool.load_weights(policy, 0)
        return pool

    @classmethod
    def tear_down(cls, engine: Engine) -> None:
        assert isinstance(engine, EnginePool)
        assert engine.restarts == 0 and len({worker["pid"] for worker in engine.workers} | {os.getpid()}) == 3
        engine.shut_down()


def turns(engine: Engine, tokens: int = 150, seed: int = 0) -> list[Completion]:
    sessions = engine.open(6)
    read = texts([12, 30, 5, 22, 9, 17], seed)
    params = SamplingParams(tokens, temperature=1.1)
    said = engine.generate([Request(s, t, 60 + n, params) for n, (s, t) in enumerate(zip(sessions, read, strict=True))])
    params = SamplingParams(8)
    said += engine.generate([Request(s, [40, 41], 90 + n, params) for n, s in enumerate(sessions)])
    engine.close(sessions)
    return said


def same(first: list[Completion], second: list[Completion]) -> None:
    assert [one.tokens for one in first] == [one.tokens for one in second]
    for one, other in zip(first, second, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-5)
        assert (one.version, one.versions, one.text) == (other.version, other.versions, other.text)


def while_sampling(pool: EnginePool, act: Callable[[int], None]) -> list[Completion]:
    """Turns, while the first worker meets its fate in the middle of them."""
    found: list[list[Completion]] = []
    thread = threading.Thread(target=lambda: found.append(turns(pool)))
    pid = int(pool.workers[0]["pid"])
    thread.start()
    deadline = time.monotonic() + 60
    while not pool._crew.dispatchers[0]._flying and time.monotonic() < deadline:
        time.sleep(0.001)
    act(pid)
    thread.join(timeout=180)
    assert not thread.is_alive()
    return found[0]


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("fate", "timeout"), [(signal.SIGKILL, 120.0), (signal.SIGSTOP, 12.0)], ids=["killed", "hung"])
def test_a_process_that_is_killed_or_hangs_changes_no_completion(start, fate, timeout):
    policy = small_policy()
    served = HFEngine(policy, version=1)
    pool = start(policy, 2, timeout=timeout, most_restarts=1)
    pids = {worker["pid"] for worker in pool.workers}
    same(turns(pool), turns(served))
    victim: list[int] = []

    def act(pid: int) -> None:
        victim.append(pid)
        os.kill(pid, fate)

    same(while_sampling(pool, act), turns(served))
    assert pool.restarts == 1 and victim[0] in pids
    assert victim[0] not in {worker["pid"] for worker in pool.workers}
    assert gone(victim[0]), "the old process is still there"
    assert all(worker["alive"] for worker in pool.workers)


def test_weights_reach_new_actors_and_wrong_input_comes_back_as_itself(start):
    policy = small_policy()
    pool = start(policy, 2, slice_tokens=16)
    actors = [one.worker._actor for one in pool._crew.dispatchers]
    policy = small_policy(3)
    pool.load_weights(policy, 2)
    ray.kill(actors[1])
    [before] = [turns(pool)]
    assert {one.version for one in before} == {2} and pool.restarts == 1
    whole = {tensor.numpy().tobytes() for _, tensor in policy.weights()}
    assert pool.sent_bytes == sum(map(len, whole)), "equal tensors are sent once"

    class Part:
        def weights(self) -> Any:
            yield from list(policy.weights())[1:]

    with pytest.raises(WeightMismatchError, match="gave no weights for") as caught:
        pool.load_weights(Part(), 3)
    assert type(caught.value) is WeightMismatchError
    same(turns(pool), before)
    assert pool.restarts == 1
    assert all(0 <= share <= 1 for share in pool.utilization())


def test_adapters_go_alone_and_serve_the_merged_policy(start):
    pytest.importorskip("peft")
    policy = small_policy(lora={"rank": 4, "alpha": 8.0})
    for parameter in policy.policy_parameters():
        parameter.data += 0.03 * torch.rand(parameter.shape)
    pool = start(policy, 2)
    first = pool.sent_bytes
    for parameter in policy.policy_parameters():
        parameter.data -= 0.05
    pool.load_weights(policy, 2)
    assert pool.sent_bytes == sum(p.numel() * 4 for p in policy.policy_parameters()) < first / 4
    same(turns(pool), turns(HFEngine(policy, version=2)))


def test_what_a_worker_cannot_build_is_one_line(tmp_path):
    with pytest.raises(InputError) as caught:
        start_pool(EngineSpec(str(tmp_path / "nowhere")), ray_workers({"num_cpus": 1}), 1)
    assert type(caught.value) is InputError
    said = rf"worker 0 on \S+ \(pid \d+\): model {re.escape(str(tmp_path / 'nowhere'))}: no such folder"
    assert re.fullmatch(said, str(caught.value))
