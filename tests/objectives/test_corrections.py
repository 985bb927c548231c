"""Weights for the mismatch of sampling and learning engine."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.objectives import DiscrepancyMask, MaskedImportance, TruncatedImportance

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


# ---- the mask of engines that disagree ------------------------------------------------------------------------------


def kept(ratios, *, trajectory: float, token: float, lengths=None, **fields) -> list[float]:
    ratios = torch.tensor(ratios)
    lengths = lengths or [len(ratios)]
    x = Experience.from_lengths(
        lengths, [1] * len(lengths), [len(lengths)], old_logp=ratios.log() - 2,
        behavior_logp=torch.full((len(ratios),), -2.0), **fields,
    )  # fmt: skip
    return DiscrepancyMask(trajectory, token)(PolicyOutput(torch.zeros(len(ratios))), x).tolist()


def test_a_trajectory_is_kept_by_its_geometric_mean_and_its_tokens_one_by_one():
    # The geometric mean of 1, 1.02, 0.98 less 1 is -1.33351e-4.
    assert kept([1.0, 1.02, 0.98], trajectory=1e-3, token=0.015) == [1.0, 0.0, 0.0]
    assert kept([1.0, 1.02, 0.98], trajectory=1.334e-4, token=math.inf) == [1.0] * 3
    assert kept([1.0, 1.02, 0.98], trajectory=1.333e-4, token=math.inf) == [0.0] * 3


def test_a_trajectory_whose_tokens_all_pass_may_be_removed_as_a_whole():
    assert kept([1.01, 1.01, 1.01], trajectory=0.005, token=0.05) == [0.0] * 3
    assert kept([1.01, 1.01, 1.01], trajectory=0.02, token=0.05) == [1.0] * 3


def test_trajectories_are_judged_apart_and_without_bounds_all_are_kept():
    assert kept([1.0, 1.0, 1.3, 0.8], trajectory=0.01, token=0.5, lengths=[2, 2]) == [1.0, 1.0, 0.0, 0.0]
    assert kept([9.0, 0.1, 30.0], trajectory=math.inf, token=math.inf) == [1.0] * 3


def test_tokens_that_may_not_train_have_no_say_in_the_mean():
    mask = torch.tensor([True, False, True])
    assert kept([1.0, 5.0, 1.001], trajectory=1e-3, token=0.5, mask=mask) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("engine", ["old_logp", "behavior_logp"])
def test_a_token_to_which_an_engine_gives_no_probability_is_removed(engine):
    logp = {"old_logp": torch.full((2,), -2.0), "behavior_logp": torch.full((2,), -2.0)}
    logp[engine][0] = -math.inf
    x = Experience.from_lengths([2], [1], [1], **logp)
    assert DiscrepancyMask(math.inf, math.inf)(PolicyOutput(torch.zeros(2)), x).tolist() == [0.0, 1.0]
    assert DiscrepancyMask(0.5, math.inf)(PolicyOutput(torch.zeros(2)), x).tolist() == [0.0, 0.0]


def test_the_mask_passes_no_gradient_and_stands_in_for_missing_old_probabilities_with_present_ones():
    x = Experience.from_lengths([2], [1], [1], behavior_logp=torch.tensor([-2.0, -2.0]))
    logp = torch.tensor([-2.0, -1.0], requires_grad=True)
    weight = DiscrepancyMask(math.inf, 0.5)(PolicyOutput(logp), x)
    assert weight.tolist() == [1.0, 0.0]
    assert not weight.requires_grad


@pytest.mark.parametrize("field", ["trajectory", "token"])
def test_a_bound_on_the_disagreement_is_above_0(field):
    with pytest.raises(InputError, match=rf"discrepancy_mask\.{field} = 0"):
        DiscrepancyMask(**{field: 0.0})
    with pytest.raises(ValueError, match="needs behavior_logp"):
        DiscrepancyMask()(OUT, batch().replace(behavior_logp=None))
