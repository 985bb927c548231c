from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stratagem.multiagent.relations import Relation, TaskEncoder, attended

OWN, NUMBERS, CODES = 3, 5, 4
RELATION = Relation(OWN, NUMBERS, CODES, width=6, outputs=8, seed=1)


def seen(rows: int, others: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    told = torch.randn(rows, others, NUMBERS, generator=source)
    told[..., 0] = 1
    return torch.randn(rows, OWN, generator=source), told


def features(own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return attended(RELATION.weights(own, others), RELATION.value(others))


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(5)), seed=st.integers(0, 100))
def test_in_another_order_others_have_the_same_weights_and_come_to_the_same(order: list[int], seed: int) -> None:
    own, others = seen(3, 5, seed)
    assert torch.allclose(RELATION.weights(own, others[:, order]), RELATION.weights(own, others)[..., order], atol=1e-6)
    assert torch.allclose(features(own, others[:, order]), features(own, others), atol=1e-6)


def test_others_that_are_all_there_twice_come_to_the_same() -> None:
    own, others = seen(4, 3)
    assert torch.allclose(features(own, others.repeat(1, 2, 1)), features(own, others), atol=1e-6)


def test_weights_are_the_softmax_over_others_of_each_head() -> None:
    own, others = seen(2, 3)
    others[1, 2] = 0
    found = RELATION.weights(own, others)
    for row, there in ((0, 3), (1, 2)):
        for head in range(CODES):
            key = (RELATION.key.weight @ own[row] + RELATION.key.bias)[6 * head : 6 * head + 6]
            scores = [
                float(key.detach() @ RELATION.query(other).detach()[6 * head : 6 * head + 6]) / 8**0.5
                for other in others[row, :there]
            ]
            expected = torch.tensor(scores).softmax(0).tolist()
            assert found[row, head, :there].tolist() == pytest.approx(expected, abs=1e-6)
    assert float(found.detach()[1, :, 2].abs().max()) == 0
    assert found.sum(2).detach().numpy() == pytest.approx(1, abs=1e-6)


def test_whoever_is_alone_has_features_zero_and_finite_gradients() -> None:
    own, others = torch.randn(2, OWN), torch.zeros(2, 3, NUMBERS)
    found = features(own, others)
    found.sum().backward()
    assert not found.any() and all(bool(w.grad.isfinite().all()) for w in RELATION.parameters())
    RELATION.zero_grad()
    assert features(own, torch.zeros(2, 0, NUMBERS)).tolist() == torch.zeros(2, CODES, 8).tolist()


def test_codes_are_likely_by_the_number_of_agents_alone() -> None:
    encoder = TaskEncoder(6, seed=2)
    logp = encoder(torch.tensor([2.0, 4.0, 2.0]))
    assert logp.exp().sum(1).detach().numpy() == pytest.approx(1, abs=1e-6) and torch.equal(logp[0], logp[2])
    first, _, last = encoder.network
    hidden = torch.tanh(first.weight @ torch.tensor([0.4]) + first.bias)
    assert torch.allclose(logp[1], torch.log_softmax((last.weight @ hidden + last.bias) / 4, 0)) and len(hidden) == 3
