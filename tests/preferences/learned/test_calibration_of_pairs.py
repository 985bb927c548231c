"""Calibration of pairs, of which neither is first: bins by hand, and intervals."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.preferences.learned.calibration import calibration


def test_the_error_of_bins_made_by_hand():
    """Said 0.8 three times and right twice, 0.6 once and wrong: ``(3 |0.8 - 2/3| + |0.6 - 0|) / 4 = 0.25``."""
    found = calibration(torch.tensor([0.8, 0.8, 0.8, 0.6]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert found["error"] == pytest.approx((3 * (0.8 - 2 / 3) + 0.6) / 4, abs=1e-6)
    assert found["said"] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert found["held"] == pytest.approx([1 / 3, 1, 0, 2 / 3])
    assert found["comparisons"] == [3, 1, 1, 3]
    assert found["brier"] == pytest.approx((2 * 0.04 + 0.64 + 0.36) / 4, abs=1e-6)
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.8) + math.log(0.2) + math.log(0.4)) / 4, abs=1e-6)


def test_who_is_named_first_does_not_count():
    p, y = torch.rand(50, generator=torch.Generator().manual_seed(0)), (torch.arange(50) % 3 == 0).float()
    flip = torch.arange(50) % 2 == 0
    swapped = calibration(torch.where(flip, 1 - p, p), torch.where(flip, 1 - y, y))
    plain = calibration(p, y)
    for name in ("error", "brier", "log_loss", "said", "held"):
        assert swapped[name] == pytest.approx(plain[name], abs=1e-5)


def test_labels_that_were_all_sorted_are_no_error_of_the_model():
    """Seven in ten of those it says 0.7 of are right, also where the right one is always listed first."""
    said = torch.tensor([0.7] * 7 + [0.3] * 3)
    assert calibration(said, torch.ones(10))["error"] == pytest.approx(0, abs=1e-6)


def test_intervals_hold_what_they_are_of_and_shrink_with_more_pairs():
    source = torch.Generator().manual_seed(1)
    widths = []
    for pairs in (50, 5000):
        p = 0.05 + 0.9 * torch.rand(pairs, generator=source)
        y = (torch.rand(pairs, generator=source) < p).float()
        found = calibration(p, y)
        for name in ("brier", "log_loss"):
            low, high = found[f"{name}_interval"]
            assert low < found[name] < high
        low, high = found["error_interval"]
        widths.append(high - low)
        assert 0 <= low < high
        assert found == calibration(p, y)
    assert widths[1] < widths[0] / 3 and found["error"] < 0.04
