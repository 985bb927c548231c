"""The log-likelihood within a trust region, and the weight that goes with it."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import LogLikelihood, MaskedLogLikelihood, PolicyGradient, TokenRatio, TruncatedImportance


def slope(ratio: float, advantage: float, gate: MaskedLogLikelihood) -> float:
    logp = torch.tensor([-0.7], requires_grad=True)
    x = Experience.from_lengths([1], [1], [1])
    gate(torch.tensor([ratio]), torch.tensor([advantage]), PolicyOutput(logp), x).sum().backward()
    return logp.grad.item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "kept"),
    [(1, 1.3, 0), (1, 0.5, 1), (-1, 0.5, 0), (-1, 1.5, 1), (1, 1.26, 1), (-1, 0.81, 1), (0, 9.0, 1)],
)
def test_the_mask_worked_by_hand(advantage, ratio, kept):
    """What passes is the advantage, not its multiple by the ratio."""
    gate = MaskedLogLikelihood(0.2, 0.27)
    assert slope(ratio, advantage, gate) == kept * advantage
    x = Experience.from_lengths([1], [1], [1])
    rho, credit = torch.tensor([ratio]), torch.tensor([float(advantage)])
    bound = gate.binds(rho, credit, PolicyOutput(rho.log()), x)
    assert bound.item() == (kept == 0)


def test_with_infinite_bounds_it_is_the_log_likelihood():
    logp, advantage = torch.tensor([-0.1, -2.0, -0.4]), torch.tensor([1.0, -2.0, 0.5])
    x, ratio = Experience.from_lengths([3], [1], [1]), torch.tensor([9.0, 1e-6, 1.0])
    found = MaskedLogLikelihood(math.inf, math.inf)(ratio, advantage, PolicyOutput(logp), x)
    assert torch.equal(found, LogLikelihood()(ratio, advantage, PolicyOutput(logp), x))


def test_bounds_are_not_negative():
    with pytest.raises(InputError, match=r"masked_log_likelihood.low = -0.1"):
        MaskedLogLikelihood(low=-0.1)


def test_the_weight_may_hold_the_staleness_too_and_is_detached():
    logp = torch.tensor([-1.0, -1.0], requires_grad=True)
    x = Experience.from_lengths(
        [2], [1], [1], behavior_logp=torch.tensor([-1.5, -9.0]), old_logp=torch.tensor([-1.5, -9.0])
    )
    weight = TruncatedImportance(high=5.0, numerator="current")(PolicyOutput(logp), x)
    assert weight.tolist() == pytest.approx([math.exp(0.5), 5.0]) and not weight.requires_grad
    assert TruncatedImportance(high=5.0)(PolicyOutput(logp), x).tolist() == [1.0, 1.0]
    assert TruncatedImportance(numerator="current").needs() == {"behavior_logp"}
    assert TruncatedImportance().needs() == {"behavior_logp", "old_logp"}


def test_a_weight_by_the_current_policy_goes_with_any_ratio_that_only_masks():
    PolicyGradient(
        ratio=TokenRatio("behavior"),
        gate=MaskedLogLikelihood(),
        correction=TruncatedImportance(numerator="current"),
    )
    with pytest.raises(InputError, match="holds pi_old / mu already"):
        PolicyGradient(ratio=TokenRatio("behavior"), correction=TruncatedImportance())


def test_tokens_that_may_not_train_reach_nothing():
    logp = torch.tensor([-1.0, -math.inf], requires_grad=True)
    x = Experience.from_lengths(
        [2], [1], [1], mask=[True, False], advantage=torch.tensor([1.0, math.nan]),
        behavior_logp=torch.tensor([-1.0, math.nan]), old_logp=torch.tensor([-1.0, math.nan]),
    )  # fmt: skip
    objective = PolicyGradient(
        gate=MaskedLogLikelihood(), correction=TruncatedImportance(high=5.0, numerator="current")
    )
    objective(PolicyOutput(logp), x).loss.backward()
    assert logp.grad.tolist() == [-1.0, 0.0]
