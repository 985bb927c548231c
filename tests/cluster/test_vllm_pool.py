"""Rollout workers with vLLM, where it and Ray are installed: `make test-vllm`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from stratagem import run
from stratagem.cluster import Cluster, EnginePool, EngineSpec, PoolSettings, TreePool, ray_workers, start_pool
from stratagem.errors import InputError
from stratagem.language.conformance import EngineConformance
from stratagem.language.engine import Engine
from stratagem.language.policy import LanguagePolicy

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; make test-vllm runs these")

RUN = {
    "task": "key_door:max_turns=8",
    "engine": "vllm",
    "precision": "float32",
    "steps": 2,
    "evaluation_episodes": 2,
    "values": {"sampler.prompts_per_step": 2, "sampler.group_size": 4},
    "cluster": Cluster(),
}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, address="local")
    yield
    ray.shutdown()


@needs_vllm
class TestRayPoolOfVLLM(EngineConformance):
    limit = 4096

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
        policy.save(cls.folder)
        spec = EngineSpec(str(cls.folder), "vllm", "float32", "cpu")
        pool = start_pool(spec, ray_workers(), 1, PoolSettings(max_sessions=cls.limit))
        assert not isinstance(pool, TreePool)
        pool.load_weights(policy, 0)
        return pool

    @classmethod
    def tear_down(cls, engine: Engine) -> None:
        assert isinstance(engine, EnginePool) and engine.restarts == 0
        engine.shut_down()


@needs_vllm
def test_a_run_samples_in_a_worker_and_says_where_its_seconds_went(tmp_path: Path) -> None:
    result = run.train("grpo", out=tmp_path / "run", **RUN)
    rows = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row["workers/restarts"] == 0 and row["tokens/sampled"] > 0 and row["weights/sent"] > 0
        inside = ("weights", "environments", "generate", "transport")
        assert 0 < sum(row[f"timing/{name}"] for name in inside) <= row["timing/rollout"]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_worker_without_vllm_says_in_a_line_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"worker 0 on .*: engine vllm needs vLLM \(.*\): pip install 'stratagem\[vllm\]'"
    ):
        run.train("grpo", out=tmp_path / "run", **RUN)
