"""The law of return and entropy, and how an update moves the entropy: exact, and worked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from stratagem.errors import InputError
from stratagem.study.entropy_law import EntropyLaw, entropy_change


def entropy(logits: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def test_the_law_is_recovered_from_what_it_generated():
    H = np.linspace(0.05, 1.5, 20)
    law = EntropyLaw.fit(H, -0.3 * np.exp(H) + 0.8)
    assert (law.a, law.b) == pytest.approx((0.3, 0.8), abs=1e-9)
    assert law.ceiling == pytest.approx(0.5)
    assert law.r_squared == pytest.approx(1)
    assert law.predict(0.7) == pytest.approx(0.8 - 0.3 * math.exp(0.7))


def test_the_fit_is_the_one_of_least_squares():
    source = np.random.default_rng(4)
    H = source.uniform(0.1, 1.2, 50)
    R = 0.9 - 0.2 * np.exp(H) + 0.05 * source.standard_normal(50)
    law = EntropyLaw.fit(H, R)
    slope, intercept = np.polyfit(np.exp(H), R, 1)
    assert (law.a, law.b) == pytest.approx((-slope, intercept))
    assert law.r_squared == pytest.approx(np.corrcoef(np.exp(H), R)[0, 1] ** 2)


def test_the_metrics_of_a_run_are_fitted_where_they_have_both_figures():
    rows = [{"entropy": h, "reward": 1 - 0.1 * math.exp(h)} for h in (1.0, 0.5, 0.2)]
    law = EntropyLaw.of_metrics([*rows, {"entropy": 0.1}, {"reward": 7.0}])
    assert (law.a, law.b) == pytest.approx((0.1, 1.0))


@pytest.mark.parametrize(
    ("H", "R", "message"),
    [([1.0], [1.0], "two different"), ([1.0, 1.0], [0.0, 1.0], "two different"), ([1.0, 2.0], [1.0], "as many")],
)
def test_what_cannot_be_fitted_is_refused(H, R, message):
    with pytest.raises(InputError, match=message):
        EntropyLaw.fit(H, R)
    with pytest.raises(InputError, match="finite"):
        EntropyLaw.fit([1.0, math.nan], [1.0, 2.0])


def test_returns_that_never_change_leave_nothing_to_explain():
    law = EntropyLaw.fit([0.5, 1.0], [0.3, 0.3])
    assert (law.a, law.ceiling) == (0, 0.3)
    assert math.isnan(law.r_squared)


# ---- how the entropy moves ------------------------------------------------------------------------------------------

PI = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
ADVANTAGE = torch.tensor([0.3, -0.6, -0.9], dtype=torch.float64)


@pytest.mark.parametrize(
    ("move", "predicted", "true"),
    [
        (0.01 * PI * ADVANTAGE, -0.00098326, -0.00098372),
        (0.01 * ADVANTAGE, -0.0032546, -0.0032578),
        (-0.01 * ADVANTAGE, 0.0032546, 0.0032514),
    ],
)
def test_predicted_and_true_changes_are_those_worked_by_hand(move, predicted, true):
    assert entropy_change(PI.log(), move).item() == pytest.approx(predicted, abs=1e-7)
    assert (entropy(PI.log() + move) - entropy(PI.log())).item() == pytest.approx(true, abs=1e-7)


def test_the_prediction_is_right_to_first_order():
    source = torch.Generator().manual_seed(0)
    logits, move = (torch.randn(100, 6, generator=source, dtype=torch.float64) for _ in range(2))
    logp = logits.log_softmax(-1)
    errors = [
        ((entropy(logits + eta * move) - entropy(logits)) / eta - entropy_change(logp, move)).abs().max().item()
        for eta in (1e-1, 1e-2, 1e-3, 1e-4)
    ]
    for coarse, fine in pairwise(errors):
        assert fine == pytest.approx(coarse / 10, rel=0.5)


def test_a_uniform_policy_keeps_its_entropy_to_first_order_and_impossible_actions_add_nothing():
    uniform = torch.full((2,), 0.5, dtype=torch.float64).log()
    assert entropy_change(uniform, torch.tensor([1.0, -1.0], dtype=torch.float64)).item() == pytest.approx(0)
    without = torch.cat([PI.log(), torch.tensor([-math.inf], dtype=torch.float64)])
    moved = torch.cat([ADVANTAGE, torch.tensor([5.0], dtype=torch.float64)])
    assert entropy_change(without, moved).item() == pytest.approx(entropy_change(PI.log(), ADVANTAGE).item())
