"""The loss of a critic at the ends of steps."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import StepValueLoss


def batch(**fields: object) -> Experience:
    """Two paths of two steps and one, of two tokens each but the last."""
    targets = torch.tensor([9.0, 1.0, 9.0, -0.5, 0.25])
    return Experience.from_lengths([2, 2, 1], [2, 1], [1, 1], **{"value_target": targets, **fields})


def test_it_is_the_mean_square_at_the_last_tokens_of_turns():
    value = torch.tensor([7.0, 0.5, 7.0, -1.0, 0.0], requires_grad=True)
    loss = StepValueLoss(2.0)(PolicyOutput(torch.zeros(5), value_after=value), batch())
    errors = [math.tanh(0.5) - 1, math.tanh(-1.0) + 0.5, -0.25]
    mean = sum(error**2 for error in errors) / 3
    assert loss.loss.item() == pytest.approx(2 * mean, rel=1e-5)
    assert loss.metrics["step_value_loss"].item() == pytest.approx(mean, rel=1e-5)
    loss.loss.backward()
    assert value.grad is not None and (value.grad != 0).tolist() == [False, True, False, True, True]


def test_a_free_value_is_taken_as_it_is():
    value = torch.tensor([7.0, 3.0, 7.0, -0.5, 0.25])
    loss = StepValueLoss(1.0, "free")(PolicyOutput(torch.zeros(5), value_after=value), batch())
    assert loss.loss.item() == pytest.approx(4 / 3)


@pytest.mark.parametrize("target", [1.0, -1.0])
def test_targets_at_the_bounds_have_a_finite_loss_and_gradient(target):
    value = torch.full((5,), 40.0, requires_grad=True)
    loss = StepValueLoss()(
        PolicyOutput(torch.zeros(5), value_after=value), batch(value_target=torch.full((5,), target))
    )
    loss.loss.backward()
    assert value.grad is not None and bool(value.grad.isfinite().all()) and bool(loss.loss.isfinite())


def test_the_mask_of_the_critic_comes_before_that_of_the_policy():
    value = torch.tensor([0.0, math.inf, 0.0, 0.0, math.nan], requires_grad=True)
    x = batch(mask=torch.zeros(5, dtype=torch.bool), critic_mask=torch.tensor([True, False, True, True, False]))
    loss = StepValueLoss(1.0)(PolicyOutput(torch.zeros(5), value_after=value), x)
    assert loss.loss.item() == pytest.approx(0.25)
    loss.loss.backward()
    assert value.grad is not None and bool(value.grad.isfinite().all())


def test_losses_of_pieces_add_up_to_that_of_the_whole():
    x, value = batch(), torch.linspace(-1, 1, 5)
    whole = StepValueLoss()(PolicyOutput(torch.zeros(5), value_after=value), x).loss
    pieces = [(torch.tensor([0]), value[:4]), (torch.tensor([1]), value[4:])]
    parts = [
        StepValueLoss()(PolicyOutput(torch.zeros(len(v)), value_after=v), x.microbatch(rows)).loss for rows, v in pieces
    ]
    assert torch.stack(parts).sum().item() == pytest.approx(whole.item())


def test_without_values_or_targets_it_says_what_it_needs():
    with pytest.raises(ValueError, match=r"value_after and x\.value_target"):
        StepValueLoss()(PolicyOutput(torch.zeros(5)), batch())
