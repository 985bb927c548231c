"""Group sizes by predicted success: the gain of a group, two ways to share rollouts out, and what they are told."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from stratagem.advantages import GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab import find_game
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import SequenceMean
from stratagem.prompts import Pool, PromptHistory
from stratagem.sampling import Budgeted, ContextMean, Neighbours, Rollouts, TextFeatures, allocate, group_gain
from stratagem.seeding import generator


def gain(size: int, rate: float) -> float:
    return float(group_gain(np.array(size), np.array(rate)))


def total(sizes: np.ndarray, rate: np.ndarray) -> float:
    return float(group_gain(sizes, rate).sum())


@pytest.mark.parametrize(
    ("size", "rate", "expected"),
    [(2, 0.5, 0.5), (4, 0.25, 1.734375), (8, 0.1, 3.75626), (8, 0.5, 3.96875), (8, 0.9, 0.8)],
)
def test_the_gain_of_a_group(size, rate, expected):
    assert gain(size, rate) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5, 17, 128])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.77, 1.0])
def test_the_gain_is_the_failures_expected_in_groups_that_disagree(size, rate):
    expected = sum(comb(size, k) * rate**k * (1 - rate) ** (size - k) * (size - k) for k in range(1, size))
    assert gain(size, rate) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert gain(1, rate) == gain(0, rate) == 0


def test_gains_of_rare_successes_are_not_concave():
    steps = np.diff(group_gain(np.arange(1, 6), np.float64(0.1)))
    assert steps[:3].tolist() == pytest.approx([0.18, 0.333, 0.4626])
    assert (np.diff(steps) > 0).all()


def test_greedy_is_not_the_best_where_gains_are_not_concave():
    rate = np.array([0.9, 0.5, 0.1, 0.0])
    greedy, exact = (allocate(rate, 16, method=method) for method in ("greedy", "exact"))
    assert greedy.tolist() == [2, 10, 2, 2] and total(greedy, rate) == pytest.approx(5.3502, abs=1e-4)
    assert exact.tolist() == [2, 2, 10, 2] and total(exact, rate) == pytest.approx(6.1932, abs=1e-4)


def test_the_exact_allocation_is_never_behind_and_is_the_best_of_all():
    source = np.random.default_rng(1000)
    for _ in range(500):
        count, least = int(source.integers(1, 6)), int(source.integers(1, 4))
        rate, most = source.random(count), least + int(source.integers(0, 12))
        budget = int(source.integers(least * count, least * count + 25))
        greedy, exact = (allocate(rate, budget, least, most, method) for method in ("greedy", "exact"))
        for sizes in (greedy, exact):
            assert sizes.sum() == min(budget, most * count) and sizes.min() >= least and sizes.max() <= most
        assert total(exact, rate) >= total(greedy, rate) - 1e-12
    rate = np.array([0.05, 0.4, 0.2])
    every = [np.array(sizes) for sizes in product(range(2, 9), repeat=3) if sum(sizes) == 13]
    best = max(total(sizes, rate) for sizes in every)
    assert total(allocate(rate, 13, 2, 8, "exact"), rate) == pytest.approx(best, rel=1e-12)


def test_prompts_that_gain_least_are_dropped_where_there_is_not_enough_for_all():
    rate = np.array([0.5, 0.0, 0.3, 0.5])
    for method in ("greedy", "exact", "uniform"):
        assert allocate(rate, 4, method=method).tolist() == [2, 0, 0, 2]
        assert allocate(rate, 7, method=method)[1] == 0
        assert allocate(rate, 1, method=method).tolist() == [0] * 4
        assert allocate(np.zeros(0), 4, method=method).tolist() == []
    assert allocate(rate, 10, method="uniform").tolist() == [3, 3, 2, 2]
    assert allocate(rate, 100, 2, 4).tolist() == [4] * 4


def test_allocations_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="least = 3, most = 2, total = 9: must be 1 <= least <= most"):
        allocate(np.array([0.5]), 9, 3, 2)
    with pytest.raises(InputError, match=r"rates must lie in \[0, 1\]"):
        allocate(np.array([float("nan")]), 9)


# ---- in a sampler ---------------------------------------------------------------------------------------------------


def read(numbers: list[int]) -> list[str]:
    """Even prompts are easy, odd ones hard."""
    return [("easy", "hard")[number % 2] for number in numbers]


def scores(kept: PromptHistory, step: int, **score: float) -> PromptHistory:
    for name, value in score.items():
        x = Experience.from_lengths([1] * 2, [1] * 2, [2], reward=[value, value])
        kept = kept.noted(torch.tensor([int(name[1:])]), x, step)
    return kept


def pool(kept: PromptHistory, size: int = 4) -> Pool:
    number = torch.arange(size)
    return Pool(number, kept.at(number), kept, 9, read)


def test_what_is_foreseen_of_a_prompt_comes_from_prompts_like_it():
    kept = scores(PromptHistory.blank(torch.zeros(0, dtype=torch.int64)), 0, n0=1.0, n1=0.0)
    rule = Budgeted(predictor=Neighbours(count=1))
    easy, hard = rule.predicted(pool(kept), torch.tensor([2, 3])).tolist()
    # One trial of the mean beside the neighbour's: (1 + 0.5) / 2 and (0 + 0.5) / 2.
    assert (easy, hard) == pytest.approx((0.75, 0.25))
    sizes = rule.sizes(pool(kept), torch.tensor([2, 3]), 8, generator(0))
    assert sizes.sum() == 16 and sizes[1] > sizes[0]


def test_the_context_is_what_came_back_before_and_the_newest_of_it():
    nothing = PromptHistory.blank(torch.zeros(0, dtype=torch.int64))
    rule = Budgeted(predictor=ContextMean(), context=2)
    assert rule.predicted(pool(nothing), torch.tensor([0])).tolist() == [0.5]
    kept = scores(scores(nothing, 0, n0=1.0, n1=1.0), 1, n2=0.0, n3=1.0)
    assert rule.predicted(pool(kept), torch.tensor([0])).tolist() == [0.5]
    # Draws of the batch that is planned are no scores.
    drawn = kept.drawn(torch.tensor([0, 1, 7]))
    assert rule.predicted(pool(drawn), torch.tensor([0])).tolist() == [0.5]
    assert Budgeted(predictor=ContextMean()).predicted(pool(kept), torch.tensor([0])).tolist() == pytest.approx([4 / 6])


def test_scores_of_another_range_are_mapped():
    kept = scores(PromptHistory.blank(torch.zeros(0, dtype=torch.int64)), 0, n0=-1.0, n1=0.5)
    rule = Budgeted(predictor=ContextMean(), lowest=-1.0)
    assert rule.predicted(pool(kept), torch.tensor([0])).tolist() == pytest.approx([(0 + 0.75 + 1) / 4])


def test_the_lab_rolls_out_groups_of_predicted_sizes_and_advantages_are_of_each_by_itself():
    world = LabWorld(LabTask(find_game("prompts")), 1000)
    sampler = Rollouts(prompts_per_step=3, group_size=6, curriculum=Budgeted(most=14, method="greedy"))
    for step in range(3):
        collected = world.collect(sampler, step)
        x = collected.x
        assert x is not None
        sizes = x.group_of_trajectory.size()
        assert sizes.sum() == 18 and sizes.min() >= 2 and sizes.max() <= 14
        assert 0 <= collected.metrics["curriculum/unanimous"] <= 1
    assert len(sizes.unique()) > 1
    advantage = GroupStandardized()(x)
    for group in range(3):
        alone = x.select(x.group_of_trajectory.labels == group)
        torch.testing.assert_close(advantage[x.group_of_token.labels == group], GroupStandardized()(alone))


def test_uniform_sizes_are_weighed_as_groups_without_a_budget():
    task = LabTask(find_game("prompts"))
    x = LabWorld(task, 1000).collect(Rollouts(3, 4, curriculum=Budgeted(method="uniform")), 0).x
    assert x is not None and x.group_of_trajectory.size().tolist() == [4, 4, 4]
    weights = SequenceMean().weights(x)
    assert x.group_of_token.sum(weights).tolist() == pytest.approx([1 / 3] * 3)


def test_budgets_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"budgeted: group_size = 1: must lie between least = 2 and most = 128"):
        Rollouts(group_size=1, curriculum=Budgeted())
    with pytest.raises(InputError, match=r"budgeted.most = 1: must be at least least = 2"):
        Budgeted(most=1)
    with pytest.raises(InputError, match=r"budgeted.highest = 0.0: must be above lowest = 0.0"):
        Budgeted(highest=0.0)
    kept = PromptHistory.blank(torch.arange(2))
    with pytest.raises(InputError, match="curriculum budgeted: start states show no text here"):
        Budgeted().predicted(Pool(torch.arange(2), kept, kept), torch.arange(2))


def test_texts_are_encoded_once_and_by_anybody():
    features = TextFeatures(width=64)
    rows = features(torch.tensor([0, 1, 2]), read)
    assert rows.shape == (3, 64) and torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert len(features._known) == 2
    own = TextFeatures("python:tests_encoder_that_is_not:there")
    with pytest.raises(InputError, match="features by python:tests_encoder_that_is_not:there: cannot be loaded"):
        own(torch.tensor([0]), read)
    with pytest.raises(InputError, match=r"text_features.encoder = 'words': must be ngrams or python:module:function"):
        TextFeatures("words")
    with pytest.raises(InputError, match="must be one finite vector for each of 1 prompts"):
        TextFeatures("python:builtins:len").encoded(["a"])
