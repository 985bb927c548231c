"""A judge of steps: soft labels at the ends of turns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stratagem.estimators import StepCorrectness
from stratagem.experience import Experience


def batch(labels: list[float], **fields: object) -> Experience:
    return Experience.from_lengths([1] * len(labels), [len(labels)], [1], value_target=torch.tensor(labels), **fields)


def said(logits: list[float]) -> dict[str, Tensor]:
    return {"correct": torch.tensor(logits, requires_grad=True).unsqueeze(1)}


def test_a_label_of_one_half_is_best_met_by_one_half_at_a_loss_of_ln_2():
    x, estimator = batch([0.5]), StepCorrectness()
    losses = {logit: estimator.loss(said([logit]), {}, x).item() for logit in (-0.1, 0.0, 0.1)}
    assert losses[0.0] == pytest.approx(math.log(2)) and losses[0.0] < min(losses[-0.1], losses[0.1])


def test_it_is_the_cross_entropy_of_two_classes_meaned_over_turns():
    p = [1 / (1 + math.exp(-2.0)), 0.5]
    expected = -(0.8 * math.log(p[0]) + 0.2 * math.log(1 - p[0]) + math.log(0.5)) / 2
    assert StepCorrectness().loss(said([2.0, 0.0]), {}, batch([0.8, 1.0])).item() == pytest.approx(expected)


def test_turns_outside_the_mask_teach_nothing_and_turns_without_tokens_count_nothing():
    x = Experience.from_lengths(
        [1, 0, 1], [3], [1], value_target=torch.tensor([0.5, math.nan]), critic_mask=torch.tensor([True, False])
    )
    outputs = said([0.0, 9.0, 9.0])
    loss = StepCorrectness().loss(outputs, {}, x)
    assert loss.item() == pytest.approx(math.log(2))


def test_it_fills_in_probabilities_and_says_how_often_it_agrees():
    x, outputs = batch([0.9, 0.1, 0.8]), said([1.0, 1.0, -1.0])
    filled = StepCorrectness().fill(outputs, x).turn_action_value
    assert filled is not None and filled.shape == (3, 1)
    assert filled[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1)))
    with torch.no_grad():
        figures = StepCorrectness().figures(outputs, x)
    assert figures["agreement"] == pytest.approx(1 / 3)


def test_labels_that_are_missing_or_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"step_correctness needs x\.value_target"):
        StepCorrectness().loss(said([0.0]), {}, Experience.from_lengths([1], [1], [1]))
    with pytest.raises(ValueError, match=r"turn 1 has label 1\.5: must be in \[0, 1\]"):
        StepCorrectness().loss(said([0.0, 0.0]), {}, batch([0.5, 1.5]))
