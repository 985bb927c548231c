"""Weights on their way: every bit arrives, adapters go alone, and a wrong answer is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from stratagem.cluster import EnginePool, LocalWorkers, start_pool
from stratagem.cluster.local import LocalWorker
from stratagem.cluster.weights import Adapters, Parcel, Sender, whole_fingerprint
from stratagem.language.conformance import small_policy, texts
from stratagem.language.engine import Request, WeightMismatchError, fingerprint
from stratagem.language.hf_engine import HFEngine
from stratagem.language.policy import LanguagePolicy
from stratagem.language.sampling import SamplingParams

CPU = torch.device("cpu")
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# ---- parcels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_every_bit_of_every_type_arrives(dtype):
    source = torch.Generator().manual_seed(0)
    whole = torch.randint(0, 2, (6, 5), generator=source).to(dtype)
    if dtype.is_floating_point:
        whole = torch.randn(6, 5, generator=source).to(dtype)
        whole[0, 0], whole[0, 1], whole[0, 2] = float("nan"), -0.0, float("inf")
    tensors = {"whole": whole, "turned": whole.T, "part": whole[1:4, ::2], "one": whole[2, 3], "none": whole[:0]}
    sent = LocalWorkers().put(Parcel.of(list(tensors.items())))
    arrived = dict(sent.tensors(CPU))
    assert list(arrived) == list(tensors)
    for name, tensor in tensors.items():
        assert (arrived[name].dtype, arrived[name].shape) == (dtype, tensor.shape)
        assert bits(arrived[name]) == bits(tensor)


def test_tied_tensors_are_sent_once():
    tied, untied = (Parcel.of(list(small_policy(tied=tied).weights())) for tied in (True, False))
    embedding = small_policy(tied=True).model.get_input_embeddings().weight
    assert untied.nbytes - tied.nbytes == embedding.numel() * 4
    assert "lm_head.weight" in tied.entries
    views = Parcel.of([("a", embedding), ("b", embedding[:3]), ("c", embedding.T)])
    assert len(views.arrays) == 3


def test_the_fingerprint_of_all_depends_on_names_and_numbers_but_not_on_their_order():
    one = {"a": 1, "b": 2}
    assert whole_fingerprint(one) == whole_fingerprint({"b": 2, "a": 1})
    others = [{"a": 2, "b": 1}, {"a": 1}, {"a": 1, "b": 3}, {"a": 1, "c": 2}]
    assert len({whole_fingerprint(other) for other in [one, *others]}) == 5


# ---- adapters -------------------------------------------------------------------------------------------------------


def adapted(rank: int = 4, seed: int = 0) -> LanguagePolicy:
    policy = small_policy(lora={"rank": rank, "alpha": 2.0 * rank})
    nudge(policy, seed)
    return policy


def nudge(policy: LanguagePolicy, seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.policy_parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=source)


@needs_peft
def test_merged_adapters_are_the_policys_weights_bit_for_bit():
    policy = adapted()
    sender = Sender(LocalWorkers().put)
    update = sender.packed(policy, 3)
    assert isinstance(update.parcel, Adapters)
    merged = dict(update.parcel.merged(update.base, CPU))
    expected = dict(policy.weights())
    assert list(merged) == list(expected)
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    assert update.expected == whole_fingerprint({name: fingerprint(tensor) for name, tensor in expected.items()})


def test_adapters_whose_product_is_turned_are_turned_back():
    matrices = [("w/0/A", torch.randn(2, 5)), ("w/0/B", torch.randn(3, 2))]
    base = Parcel.of([("w", torch.zeros(5, 3))])
    adapters = Adapters(Parcel.of(matrices), {"w": ((0.5, True),)})
    [(_, merged)] = adapters.merged(base, CPU)
    assert torch.equal(merged, (matrices[1][1] @ matrices[0][1]).T * 0.5)


def test_several_adapters_of_a_matrix_add_up():
    a, b, c, d = torch.randn(2, 3), torch.randn(5, 2), torch.randn(1, 3), torch.randn(5, 1)
    matrices = Parcel.of([("w/0/A", a), ("w/0/B", b), ("w/1/A", c), ("w/1/B", d)])
    adapters = Adapters(matrices, {"w": ((0.5, False), (2.0, False))})
    [(_, merged)] = adapters.merged(Parcel.of([("w", torch.ones(5, 3))]), CPU)
    torch.testing.assert_close(merged, 1 + 0.5 * b @ a + 2.0 * d @ c)


@needs_peft
def test_what_lies_below_adapters_is_sent_once_and_again_when_it_changes(start):
    policy = adapted()
    pool = start(policy, 2)
    below = Parcel.of([(name, t) for name, t in policy.model.state_dict().items() if ".lora_" not in name]).nbytes
    small = sum(parameter.numel() * 4 for parameter in policy.policy_parameters())
    assert pool.sent_bytes == below + small
    for version in (1, 2):
        nudge(policy, version)
        pool.load_weights(policy, version)
        assert pool.sent_bytes == small < below / 4
        assert says(pool, policy)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.add_(0.01)
    pool.load_weights(policy, 3)
    assert pool.sent_bytes == below + small
    assert says(pool, policy)


@needs_peft
def test_a_worker_started_again_gets_what_lies_below_adapters_too(start):
    policy, workers = adapted(), Dying()
    pool = start(policy, 1, workers)
    nudge(policy, 1)
    pool.load_weights(policy, 1)
    workers.next = {"generate"}
    assert says(pool, policy)
    assert pool.restarts == 1 and pool.version == 1


@needs_peft
def test_a_worker_that_merges_into_other_bits_is_sent_merged_weights(start, monkeypatch):
    """As one whose hardware adds up products in another order."""
    policy = adapted()
    honest = Adapters.merged

    def rounded(self: Adapters, base: Parcel, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in honest(self, base, device):
            yield name, tensor * (1 + 2**-22) if name in self.layers else tensor

    monkeypatch.setattr(Adapters, "merged", rounded)
    with pytest.warns(UserWarning, match=r"merges adapters into other bits than the learner; merged weights are sent"):
        pool = start(policy, 2)
    whole = Parcel.of(list(policy.weights())).nbytes
    assert pool.sent_bytes == whole and pool.restarts == 0
    nudge(policy, 1)
    pool.load_weights(policy, 1)
    assert pool.sent_bytes == whole and says(pool, policy)


# ---- wrong answers --------------------------------------------------------------------------------------------------


class Dying(LocalWorkers):
    """Workers that die once at each call in ``next``, and answer ``load`` wrongly ``wrong`` more times."""

    def __init__(self) -> None:
        self.next: set[str] = set()
        self.wrong = 0

    def launch(self, number: int) -> LocalWorker:
        outer = self

        class Worker(LocalWorker):
            def call(self, method: str, *arguments: Any, timeout: float) -> Any:
                if method in outer.next:
                    outer.next.remove(method)
                    raise ConnectionError("gone")
                answer = super().call(method, *arguments, timeout=timeout)
                if method == "load" and outer.wrong:
                    outer.wrong -= 1
                    return answer + 1
                return answer

        return Worker()


@pytest.fixture
def start() -> Iterator[Callable[..., EnginePool]]:
    pools: list[EnginePool] = []

    def make(policy: LanguagePolicy, count: int, workers: Any = None) -> EnginePool:
        pools.append(start_pool(lambda: HFEngine(small_policy(9)), workers or LocalWorkers(), count))
        pools[-1].load_weights(policy, 0)
        return pools[-1]

    yield make
    for pool in pools:
        pool.shut_down()


def says(pool: EnginePool, policy: LanguagePolicy) -> bool:
    """Whether every worker samples what an engine of this policy does."""
    read, found = texts([9, 14, 20, 6], 2), []
    for one in (pool, HFEngine(policy)):
        sessions = one.open(4)
        requests = [Request(s, t, n, SamplingParams(8)) for n, (s, t) in enumerate(zip(sessions, read, strict=True))]
        found.append(one.generate(requests))
        one.close(sessions)
    return all(
        ours.tokens == theirs.tokens and ours.logp == pytest.approx(theirs.logp, abs=1e-5)
        for ours, theirs in zip(*found, strict=True)
    )


def test_a_worker_that_serves_other_weights_is_started_again_once(start):
    workers = Dying()
    pool = start(small_policy(), 1, workers)
    workers.wrong = 1
    pool.load_weights(small_policy(1), 5)
    assert pool.restarts == 1 and pool.version == 5 and says(pool, small_policy(1))


def test_a_worker_that_serves_other_weights_twice_is_an_error_and_the_old_ones_stay(start):
    workers = Dying()
    pool = start(small_policy(), 2, workers)
    workers.wrong = 3
    with pytest.raises(WeightMismatchError, match=r"worker . on .* serves other weights than version 5"):
        pool.load_weights(small_policy(1), 5)
    workers.wrong = 0
    assert pool.version == 0 and says(pool, small_policy())
    pool.load_weights(small_policy(1), 6)
    assert says(pool, small_policy(1))


def test_weights_of_another_model_are_refused_without_a_restart_and_the_old_ones_stay(start):
    pool = start(small_policy(), 2)

    class Other:
        def weights(self) -> Iterator[tuple[str, Tensor]]:
            yield from list(small_policy(1).weights())[:-1]

    with pytest.raises(WeightMismatchError, match="gave no weights for"):
        pool.load_weights(Other(), 4)
    assert pool.restarts == 0 and pool.version == 0 and says(pool, small_policy())


def test_weights_that_change_after_they_were_sent_do_not_change_what_is_served(start):
    policy, workers = small_policy(), Dying()
    pool = start(policy, 1, workers)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    workers.next = {"generate"}
    assert says(pool, small_policy()) and pool.restarts == 1


def test_a_worker_that_dies_while_weights_are_loaded_gets_them_all_the_same(start):
    workers = Dying()
    pool = start(small_policy(), 2, workers)
    workers.next = {"load"}
    pool.load_weights(small_policy(2), 8)
    assert pool.restarts == 1 and pool.version == 8 and says(pool, small_policy(2))
