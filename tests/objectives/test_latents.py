from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import CodeInformation, TaskPrediction, information_estimate


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def batch(tokens: int, **fields: object) -> Experience:
    return Experience.from_lengths([1] * tokens, [1] * tokens, [1] * tokens, **fields)  # type: ignore[arg-type]


def test_the_estimate_is_the_worked_example() -> None:
    # log(4 * 0.8) - log(1.4)
    found = information_estimate(logs(0.8)[0], logs(0.8, 0.2, 0.2, 0.2))
    assert float(found) == pytest.approx(0.826679, abs=1e-6)


def test_codes_that_change_nothing_say_nothing_and_have_no_gradient() -> None:
    same = logs(0.5).repeat(5).requires_grad_()
    found = information_estimate(same[0], same[1:])
    found.backward()
    assert abs(float(found.detach())) < 1e-12
    assert float(same.grad[0]) == pytest.approx(1) and same.grad[1:].tolist() == pytest.approx([-0.25] * 4)
    # All of them move alike when the actor does: what is left over is nothing.
    assert float(same.grad.sum()) == pytest.approx(0, abs=1e-12)


def test_it_is_at_most_log_m_where_one_draw_is_the_code_and_no_other_does_this() -> None:
    drawn = torch.tensor([math.log(0.9), -1e9, -1e9])
    assert float(information_estimate(drawn[0], drawn)) == pytest.approx(math.log(3), abs=1e-6)


def test_actions_that_no_drawn_code_takes_are_finite_with_finite_gradients() -> None:
    logits = torch.tensor([[5.0, -5.0], [-800.0, 800.0]], requires_grad=True)
    logp = torch.log_softmax(logits, 1)[:, 0]
    found = information_estimate(logp[0], logp[1:])
    found.backward()
    assert math.isfinite(float(found.detach())) and bool(logits.grad.isfinite().all())


def test_the_loss_is_minus_the_mean_over_tokens_that_may_train() -> None:
    rows = torch.stack([logs(0.8, 0.8, 0.2, 0.2, 0.2), logs(0.5, 0.5, 0.5, 0.5, 0.5), torch.full((5,), torch.nan)])
    x = batch(3, mask=torch.tensor([True, True, False]))
    loss = CodeInformation()(PolicyOutput(torch.zeros(3), code_logp=rows), x)
    assert float(loss.loss) == pytest.approx(-0.826679 / 2, abs=1e-6)
    assert float(loss.metrics["information"]) == pytest.approx(0.826679 / 2, abs=1e-6)


def test_guessing_the_task_costs_its_cross_entropy() -> None:
    loss = TaskPrediction()(PolicyOutput(torch.zeros(2), task_logp=logs(0.5, 0.25)), batch(2))
    assert float(loss.loss) == pytest.approx(1.5 * math.log(2)) == float(loss.metrics["task_loss"])


@pytest.mark.parametrize("part", [CodeInformation(), TaskPrediction()])
def test_a_policy_without_codes_is_an_error(part: CodeInformation | TaskPrediction) -> None:
    with pytest.raises(ValueError, match="_logp"):
        part(PolicyOutput(torch.zeros(2)), batch(2))
