"""What beliefs earn, and how well they are calibrated."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.beliefs import calibration_by_step, combined, correctness, task_credit, tracking


def test_tracking_is_coverage_less_what_is_stale():
    assert tracking(3, 1, 1, 10) == pytest.approx(0.675)
    assert tracking(0, 0, 0, 5) == 0.0
    assert tracking(1, 0, 0, 0) == 0.0
    assert tracking(2, 0, 5, 4) == 0.0


def test_correctness_is_over_what_can_be_verified():
    assert correctness(5, 2, 8) == 0.75
    assert correctness(0, 0, 0) == 0.0


def test_the_end_counts_less_the_further_it_is():
    assert task_credit(1.0, 3) == pytest.approx(0.729)
    assert task_credit(1.0, 0) == 1.0 and task_credit(0.0, 0) == 0.0


def test_a_belief_earns_the_gated_mean_of_its_terms_and_of_those_that_are_known():
    terms = (0.675, 0.75, math.log(2) / math.log(7), 0.729)
    assert combined(1.0, terms) == pytest.approx(0.627552, abs=1e-6)
    assert combined(0.5, terms) == pytest.approx(0.313776, abs=1e-6)
    assert combined(1.0, (0.6, None, 0.3, 0.9)) == pytest.approx(0.6)
    assert combined(1.0, (None, None)) == 0.0 and combined(0.0, terms) == 0.0


def test_calibration_is_of_every_step_by_itself():
    said = torch.tensor([1.0, 0.0, 0.75, 0.75, 0.75, 0.75, 0.5])
    true = torch.tensor([True, False, True, True, True, False, False])
    found = calibration_by_step(said, true, torch.tensor([3, 3, 1, 1, 1, 1, 4]))
    assert found.step.tolist() == [1, 3, 4] and found.claims.tolist() == [4, 2, 1]
    assert found.brier.tolist() == pytest.approx([(3 * 0.0625 + 0.5625) / 4, 0.0, 0.25])
    assert found.ece.tolist() == pytest.approx([0.0, 0.0, 0.5])


def test_the_calibration_error_adds_up_gaps_of_bins_and_not_across_them():
    said, true = torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([False, False, True, True])
    step = torch.zeros(4, dtype=torch.int64)
    assert float(calibration_by_step(said, true, step).ece) == pytest.approx(0.9)
    assert float(calibration_by_step(said, true, step, bins=1).ece) == pytest.approx(0.0, abs=1e-6)


def test_no_claims_have_no_calibration():
    empty = torch.zeros(0)
    assert calibration_by_step(empty, empty.bool(), empty.long()).step.tolist() == []


@pytest.mark.parametrize(
    ("said", "true", "bins", "message"),
    [([1.5], [True], 10, "probability = 1.5"), ([0.5, 0.5], [True], 10, "as many"), ([0.5], [True], 0, "bins = 0")],
)
def test_figures_that_make_no_sense_are_refused(said, true, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration_by_step(torch.tensor(said), torch.tensor(true), torch.zeros(1, dtype=torch.int64), bins)
