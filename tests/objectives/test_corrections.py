"""Weights for the mismatch of sampling and learning engine."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import MaskedImportance, TruncatedImportance

RATIOS = torch.tensor([0.4, 1.5, 3.0, 0.5])


def batch(**fields) -> Experience:
    """Two turns of two tokens with ``pi_old / mu`` as above."""
    return Experience.from_lengths(
        [2, 2], [2], [1], behavior_logp=torch.full((4,), -2.0), old_logp=RATIOS.log() - 2, **fields
    )


OUT = PolicyOutput(torch.zeros(4, requires_grad=True))


def test_truncation_bounds_the_weight():
    assert TruncatedImportance()(OUT, batch()).tolist() == pytest.approx([0.4, 1.5, 2.0, 0.5])
    assert TruncatedImportance(low=0.8, high=math.inf)(OUT, batch()).tolist() == pytest.approx([0.8, 1.5, 3.0, 0.8])


def test_masking_removes_what_lies_outside():
    # Exactly 0.5 is inside only up to rounding, so the bound stands a little lower.
    assert MaskedImportance(low=0.49)(OUT, batch()).tolist() == pytest.approx([0.0, 1.5, 0.0, 0.5])


def test_longer_units_multiply_their_tokens():
    assert TruncatedImportance("turn")(OUT, batch()).tolist() == pytest.approx([0.6, 0.6, 1.5, 1.5])
    assert TruncatedImportance("trajectory")(OUT, batch()).tolist() == pytest.approx([0.9] * 4)
    masked = batch(mask=[True, True, False, True])
    assert MaskedImportance("trajectory", low=0.2)(OUT, masked).tolist() == pytest.approx([0.3] * 4)


def test_the_weight_has_no_gradient_even_when_the_old_policy_is_the_current_one():
    logp = torch.full((4,), -1.5, requires_grad=True)
    weight = TruncatedImportance()(PolicyOutput(logp), batch().replace(old_logp=None))
    assert weight.tolist() == pytest.approx([math.exp(0.5)] * 4)
    assert not weight.requires_grad


def test_a_batch_without_behaviour_is_refused():
    with pytest.raises(ValueError, match="needs behavior_logp"):
        TruncatedImportance()(OUT, batch().replace(behavior_logp=None))
