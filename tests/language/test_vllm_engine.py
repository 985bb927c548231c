"""The vLLM engine for real, where vLLM is installed: `make test-vllm`."""

from __future__ import annotations

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
    """A policy's weights, one of which differs in the last bit of one element once they were loaded."""

    def __init__(self, policy: LanguagePolicy, name: str) -> None:
        self._policy, self._name, self._loaded = policy, name, False

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._policy.weights():
            if name == self._name and self._loaded:
                tensor = tensor.clone()
                last = tensor.reshape(-1)[-1]
                tensor.reshape(-1)[-1] = torch.nextafter(last, last + 1)
            yield name, tensor
            self._loaded |= name == self._name and self._times_read()

    def _times_read(self) -> bool:
        """Names and shapes are asked first, then what is loaded, then what it is compared with."""
        self._reads = getattr(self, "_reads", 0) + 1
        return self._reads == 2


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


def test_a_turn_that_breaks_off_leaves_nothing_running(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine._endings, "spelled", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(engine, [30, 31], count=3, stop=("x",))
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert len(ask(engine, [30, 31])[0]) == 8


def test_adapters_are_served_merged() -> None:
    pytest.importorskip("peft")
    plain = small_policy()
    policy = LanguagePolicy(plain.model, plain.tokenizer, dtype="float32", lora={"rank": 2})
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


def test_a_run_trains_with_it_and_a_correction_measures_and_bounds_the_mismatch(tmp_path: Path) -> None:
    """The engine in bfloat16 and the learner in float32: what the correction is for."""
    from stratagem.language.pretrain import tiny_model_path
    from stratagem.language.world import LanguageWorld
    from stratagem.recipe import Recipe
    from stratagem.tasks import registry

    metrics = {}
    for dtype in ("float32", "bfloat16"):
        policy = LanguagePolicy.from_path(tiny_model_path(), dtype="float32", value_head=True)
        engine = VLLMEngine(policy, dtype=dtype)  # type: ignore[arg-type]
        world = LanguageWorld(registry.make("key_door"), policy, engine, 0)
        recipe = world.adapt(run._find_recipe("RECIPE"))
        assert isinstance(recipe, Recipe)
        metrics[dtype] = run_once(recipe, world, tmp_path / dtype)
        engine.shut_down()
    assert metrics["float32"]["kl_behavior"] < 1e-6 < metrics["bfloat16"]["kl_behavior"] < 0.05


def test_the_command_trains_with_it(tmp_path: Path) -> None:
    result = run.train(
        "grpo", "key_door", engine="vllm", precision="float32", steps=2, evaluation_episodes=8, out=tmp_path / "run"
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["engine"] == "vllm"
    assert result.metrics["rollout/version" if "rollout/version" in result.metrics else "step"] >= 0
