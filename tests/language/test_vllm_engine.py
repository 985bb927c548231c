"""The vLLM engine for real, where vLLM is installed: `make test-vllm`."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stratagem import run
from stratagem.errors import InputError
from stratagem.language import engines
from stratagem.language.conformance import EngineConformance, learner_logp, small_policy, texts
from stratagem.language.engine import Engine, Request, TreeEngine, WeightMismatchError
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams
from stratagem.language.vllm_engine import VLLMEngine
from stratagem.sampling import EntropyTempering

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; make test-vllm runs these"),
]


TASK = "key_door:max_turns=8"
SMALL = {"sampler.prompts_per_step": 2, "sampler.group_size": 4}


class TestVLLMEngine(EngineConformance):
    limit = 128

    @classmethod
    def build(cls, policy: LanguagePolicy) -> Engine:
        return VLLMEngine(policy, max_sessions=cls.limit, cache_bytes=2**27)

    @classmethod
    def tear_down(cls, engine: Engine) -> None:
        assert isinstance(engine, VLLMEngine)
        engine.shut_down()


class TestVLLMEngineOfATiedModel(TestVLLMEngine):
    @classmethod
    def make_policy(cls) -> LanguagePolicy:
        return small_policy(tied=True)


class Altered:
    """A policy's weights, of which what is loaded, once names were asked, has another last bit in one element."""

    def __init__(self, policy: LanguagePolicy, name: str) -> None:
        self._policy, self._name, self._asked = policy, name, 0

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        self._asked += 1
        for name, tensor in self._policy.weights():
            if name == self._name and self._asked == 2:
                tensor = tensor.clone()
                last = tensor.reshape(-1)[-1]
                tensor.reshape(-1)[-1] = torch.nextafter(last, last + 1)
            yield name, tensor


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    return small_policy()


@pytest.fixture(scope="module")
def engine(policy: LanguagePolicy) -> Iterator[VLLMEngine]:
    engine = VLLMEngine(policy, cache_bytes=2**27)
    yield engine
    engine.shut_down()


def ask(engine: Engine, tokens: list[int], count: int = 1, seed: int = 0, **params: object) -> list[list[int]]:
    sessions = engine.open(count)
    chosen = SamplingParams(**({"max_new_tokens": 8} | params))  # type: ignore[arg-type]
    said = engine.generate([Request(session, tokens, seed + n, chosen) for n, session in enumerate(sessions)])
    engine.close(sessions)
    return [one.tokens for one in said]


def test_a_single_wrong_bit_in_any_tensor_served_is_noticed(policy: LanguagePolicy, engine: VLLMEngine) -> None:
    names = [name for name, _ in policy.weights()]
    assert len(names) == 25
    for name in names:
        with pytest.raises(WeightMismatchError, match=f"{name} differs from the policy's after loading"):
            engine.load_weights(Altered(policy, name), 1)
    engine.load_weights(policy, 0)


def test_weights_that_were_never_loaded_are_noticed(
    policy: LanguagePolicy, engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine._llm, "collective_rpc", lambda *_, **__: None)
        with pytest.raises(WeightMismatchError, match="differs from the policy's"):
            engine.load_weights(small_policy(1), 1)
    assert engine.version == 0


def test_sessions_share_whole_blocks_of_what_they_begin_with(engine: VLLMEngine) -> None:
    """Blocks of 32 tokens: of 100 common ones, 96 are taken over by each session after the first."""
    opening = texts([100], 50)[0]
    before = engine.prefilled, engine.taken_over
    ask(engine, opening)
    ask(engine, opening, count=3)
    assert engine.taken_over - before[1] == 3 * 96
    assert engine.prefilled - before[0] == 100 + 3 * 4


def test_sampling_leaves_the_generators_of_the_process_alone(engine: VLLMEngine) -> None:
    torch.manual_seed(3)
    expected = torch.rand(3).tolist()
    torch.manual_seed(3)
    ask(engine, texts([10], 51)[0])
    assert torch.rand(3).tolist() == expected


def test_starting_leaves_the_generators_and_threads_of_the_process_alone(policy: LanguagePolicy) -> None:
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    engine = VLLMEngine(policy, cache_bytes=2**27)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert torch.get_num_threads() == threads and torch.set_num_threads is set_threads
    engine.shut_down()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tempering": EntropyTempering()}, "tempering: vLLM shows no distributions"),
        ({"temperature": 0.001}, "temperature must be at least 0.01 for vLLM"),
        ({"temperature": 5.0}, r"vLLM refuses .*temperature must be in \[0, 2\]"),
    ],
)
def test_what_vllm_cannot_sample_is_refused_before_anything_is_read(
    engine: VLLMEngine, params: dict[str, object], message: str
) -> None:
    read = engine.prefilled
    with pytest.raises(InputError, match=message):
        ask(engine, [5, 6], **params)
    assert engine.prefilled == read and not isinstance(engine, TreeEngine)


def test_a_turn_that_breaks_off_leaves_nothing_running(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine._endings, "spelled", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(engine, [30, 31], count=3, stop=("x",))
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert len(ask(engine, [30, 31])[0]) == 8


@pytest.mark.parametrize("asked", [True, False])
def test_an_engine_that_goes_leaves_the_others_running(policy: LanguagePolicy, engine: VLLMEngine, asked: bool) -> None:
    said = ask(engine, [40, 41])
    other = VLLMEngine(small_policy(1), cache_bytes=2**27)
    assert ask(other, [40, 41]) != said
    if asked:
        other.shut_down()
    del other
    gc.collect()
    assert ask(engine, [40, 41]) == said


def test_adapters_are_served_merged() -> None:
    pytest.importorskip("peft")
    policy = small_policy(lora={"rank": 2})
    engine = VLLMEngine(policy, cache_bytes=2**27)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    engine.load_weights(policy, 1)
    tokens, sessions = texts([6], 52)[0], engine.open(1)
    said = engine.generate([Request(sessions[0], tokens, 0, SamplingParams(8))])[0]
    assert said.logp == pytest.approx(learner_logp(policy, [(tokens, False), (said.tokens, True)]), abs=1e-3)
    engine.shut_down()


def test_a_correction_measures_the_mismatch_of_engine_and_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner computes in float32. So does the engine, and then in bfloat16, which is what corrections are for."""
    measured = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setitem(engines.ENGINES, "vllm", lambda policy, *_, dtype=dtype: VLLMEngine(policy, dtype=dtype))
        result = run.train(
            "decoupled_ppo",
            TASK,
            engine="vllm",
            precision="float32",
            steps=2,
            evaluation_episodes=2,
            values=SMALL,
            out=tmp_path / dtype,
        )
        measured[dtype] = result.metrics["kl_behavior"]
    assert 0 <= measured["float32"] < 1e-6 < measured["bfloat16"] < 0.05


def test_a_run_trains_with_it_and_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    seen = []
    for name in ("one", "two"):
        out = tmp_path / name
        run.train(
            "grpo",
            TASK,
            engine="vllm",
            precision="float32",
            steps=2,
            evaluation_episodes=2,
            values=SMALL,
            seed=1,
            out=out,
        )
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        seen.append([(row["reward"], row["tokens/sampled"], row["loss"]) for row in rows])
        assert json.loads((out / "run.json").read_text())["engine"] == "vllm"
    assert seen[0] == seen[1] and len(seen[0]) == 2
