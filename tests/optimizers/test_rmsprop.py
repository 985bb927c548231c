from __future__ import annotations

import pytest
import torch

from stratagem.optimizers import RMSprop


def test_a_step_is_the_gradient_over_the_root_of_its_mean_square() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = RMSprop(learning_rate=0.1, decay=0.9, eps=0.5).optimizer([weight], [])
    square, expected = 0.0, 1.0
    for gradient in (2.0, -3.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.9 * square + 0.1 * gradient**2
        expected -= 0.1 * gradient / (square**0.5 + 0.5)
    assert float(weight.detach()) == pytest.approx(expected, abs=1e-6)


def test_policy_and_critic_have_groups_of_their_own() -> None:
    weights = [torch.ones(2, requires_grad=True) for _ in range(2)]
    groups = RMSprop(learning_rate=0.1, critic_learning_rate=0.2).optimizer(weights[:1], weights[1:]).param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.2] and [len(group["params"]) for group in groups] == [1, 1]
