"""The law of return and entropy, and how an update moves the entropy: exact, and worked by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from stratagem.errors import InputError
from stratagem.study.entropy_law import EntropyCourse, EntropyLaw, entropy_change


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


# ---- a past run ------------------------------------------------------------------------------------------------------


def a_run(directory: Path, rows: list[dict[str, float]]) -> Path:
    """A run directory that holds these metrics."""
    directory.mkdir()
    (directory / "run.json").write_text("{}")
    lines = (json.dumps({"step": step, **row}) + "\n" for step, row in enumerate(rows, 1))
    (directory / "metrics.jsonl").write_text("".join(lines))
    return directory


def test_a_run_that_follows_the_law_is_fitted_and_foretold(tmp_path):
    entropies = [1.0 - 0.04 * step for step in range(20)]
    run = a_run(tmp_path / "run", [{"entropy": h, "reward": 0.9 - 0.2 * math.exp(h)} for h in entropies])
    course = EntropyCourse.of_run(run)
    assert course.law is not None and (course.law.a, course.law.b) == pytest.approx((0.2, 0.9))
    predicted, measured = course.foretold()
    assert predicted == pytest.approx(0.9 - 0.2 * math.exp(0.26), abs=1e-3)  # of the mean entropy of the last two
    assert measured == pytest.approx(predicted, abs=1e-3)
    # Ten rows of two batches each: 0.98 is left of the first, 0.26 of the last.
    assert len(course.pieces()) == 10 and course.pieces()[0][:2] == (1, 2) and course.pieces()[-1][:2] == (19, 20)
    assert course.used_up == pytest.approx(1 - 0.26 / 0.98)
    plain = course.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain and plain["law"]["ceiling"] == pytest.approx(0.7)


def test_batches_without_both_figures_are_passed_over(tmp_path):
    rows = [{"entropy": 0.5}, {"entropy": 0.4, "reward": 0.1}, {"reward": 1.0}, {"entropy": 0.2, "reward": 0.3}]
    course = EntropyCourse.of_run(a_run(tmp_path / "run", rows))
    assert (course.steps, course.performance) == ((2, 4), (0.1, 0.3))


def test_a_run_of_one_entropy_has_a_course_and_no_law(tmp_path):
    course = EntropyCourse.of_run(a_run(tmp_path / "run", [{"entropy": 0.5, "reward": 0.1}] * 3))
    assert course.law is None and "two different entropies" in course.why_no_law and course.foretold() is None
    assert course.used_up == 0 and course.to_json()["law"] is None


def test_another_measure_is_read_and_one_that_is_not_there_is_refused(tmp_path):
    run = a_run(tmp_path / "run", [{"entropy": 0.5, "success": 0.1}, {"entropy": 0.25, "success": 0.2}])
    assert EntropyCourse.of_run(run, "success").performance == (0.1, 0.2)
    with pytest.raises(InputError, match="no batch tells both entropy and reward; it tells entropy, success"):
        EntropyCourse.of_run(run)
    with pytest.raises(InputError, match="holds no run"):
        EntropyCourse.of_run(tmp_path)
