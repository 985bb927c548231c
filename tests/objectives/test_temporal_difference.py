from __future__ import annotations

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import TemporalDifference


def batch(**fields: object) -> Experience:
    rewards = torch.tensor([1.0, 2.0, 3.0])
    return Experience.from_lengths([1] * 3, [2, 1], [1, 1], turn_reward=rewards, **fields)  # type: ignore[arg-type]


def said(**changes: torch.Tensor) -> PolicyOutput:
    given = {
        "value_after": torch.tensor([4.0, 1.0, 3.0], requires_grad=True),
        "next_value": torch.tensor([2.0, 0.0, 8.0]),
    }
    return PolicyOutput(torch.zeros(3), **{**given, **changes})


def test_it_is_the_mean_square_of_what_the_next_turn_makes_of_a_value() -> None:
    out = said()
    loss = TemporalDifference(0.5)(out, batch())
    # Errors: 1 + 1 - 4 = -2, 2 + 0 - 1 = 1, 3 + 4 - 3 = 4.
    assert float(loss.loss.detach()) == pytest.approx(21 / 3)
    assert float(loss.metrics["td_error"]) == pytest.approx(7 / 3) and float(
        loss.metrics["action_value"]
    ) == pytest.approx(8 / 3)
    loss.loss.backward()
    assert out.value_after.grad.tolist() == pytest.approx([4 / 3, -2 / 3, -8 / 3])


def test_masked_tokens_reach_neither_loss_nor_gradient() -> None:
    value = torch.tensor([4.0, torch.nan, 3.0], requires_grad=True)
    x = batch(mask=torch.tensor([True, False, True]))
    loss = TemporalDifference(0.5)(said(value_after=value, next_value=torch.tensor([2.0, torch.inf, 8.0])), x)
    assert float(loss.loss.detach()) == pytest.approx(20 / 2)
    loss.loss.backward()
    assert value.grad.tolist() == pytest.approx([2, 0, -4])


def test_pieces_add_up_to_the_whole() -> None:
    x, part = batch(), TemporalDifference(0.9)
    pieces = [torch.tensor([0, 1]), torch.tensor([2])]
    losses = [
        part(
            said(value_after=said().value_after[rows], next_value=said().next_value[rows]),
            x.microbatch(torch.tensor([n])),
        ).loss
        for n, rows in enumerate(pieces)
    ]
    assert float(sum(losses).detach()) == pytest.approx(float(part(said(), x).loss.detach()))


def test_a_policy_that_does_not_say_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="value_after and next_value"):
        TemporalDifference()(PolicyOutput(torch.zeros(3)), batch())
