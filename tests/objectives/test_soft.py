from __future__ import annotations

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import SoftImprovement

Q = torch.tensor([[1.0, 0.0, -2.0], [0.5, 0.5, 3.0]])


def loss_of(logits: torch.Tensor, temperature: float, **fields: object) -> torch.Tensor:
    x = Experience.from_lengths([1] * 2, [1] * 2, [1] * 2, **fields)  # type: ignore[arg-type]
    out = PolicyOutput(torch.zeros(2), log_probs=torch.log_softmax(logits, 1), action_values=Q)
    return SoftImprovement(temperature)(out, x).loss


def test_it_is_least_for_the_boltzmann_policy_of_the_values() -> None:
    best = Q / 0.5
    least = loss_of(best, 0.5)
    assert float(least) == pytest.approx(-0.5 * float(torch.logsumexp(best, 1).mean()))
    source = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert float(loss_of(best + 0.3 * torch.randn(2, 3, generator=source), 0.5)) > float(least)


def test_its_gradient_is_the_mean_of_score_times_cost_over_drawn_actions() -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    loss_of(logits, 0.2).backward()
    logp = torch.log_softmax(logits.detach(), 1)
    cost = 0.2 * logp - Q
    for row in range(2):
        expected = sum(
            logp[row, a].exp() * cost[row, a] * (torch.eye(3, dtype=torch.float64)[a] - logp[row].exp())
            for a in range(3)
        )
        assert logits.grad[row].tolist() == pytest.approx((expected / 2).tolist())


def test_an_action_that_may_not_be_taken_changes_nothing() -> None:
    logits = torch.tensor([[0.3, 0.1, -1e9], [0.2, -1e9, 0.4]], requires_grad=True)
    loss = loss_of(logits, 0.1)
    loss.backward()
    assert bool(loss.isfinite()) and float(logits.grad[0, 2]) == 0 == float(logits.grad[1, 1])


def test_masked_tokens_count_for_nothing() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [torch.inf, 0.0, 0.0]], requires_grad=True)
    loss = loss_of(logits, 0.1, mask=torch.tensor([True, False]))
    loss.backward()
    assert bool(loss.isfinite()) and not logits.grad[1].nan_to_num(0).any()


def test_what_is_missing_or_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="log_probs and action_values"):
        SoftImprovement()(PolicyOutput(torch.zeros(1)), Experience.from_lengths([1], [1], [1]))
    with pytest.raises(InputError, match="temperature"):
        SoftImprovement(-0.1)
