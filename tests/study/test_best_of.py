"""The best of several answers: exactly, and from a sample."""

from __future__ import annotations

import itertools

import pytest
import torch

from stratagem.errors import InputError
from stratagem.study.alignment import pass_at_k
from stratagem.study.best_of import best_of, expected_best


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_expected_best_is_the_mean_over_all_that_can_be_drawn(count):
    values, probability = torch.tensor([0.3, 0.9, 0.3, 0.0]), torch.tensor([0.2, 0.1, 0.3, 0.4])
    expected = 0.0
    for drawn in itertools.product(range(4), repeat=count):
        chance = 1.0
        for place in drawn:
            chance *= float(probability[place])
        expected += chance * max(float(values[place]) for place in drawn)
    assert float(expected_best(values, probability, count)) == pytest.approx(expected)
    assert float(expected_best(values, 7 * probability, count)) == pytest.approx(expected), "they need not add up to 1"


def test_columns_are_judged_each_by_itself():
    values, probability = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.ones(6)
    together = expected_best(values, probability, 4).tolist()
    assert together == pytest.approx([float(expected_best(column, probability, 4)) for column in values.unbind(1)])


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_the_best_of_a_sample_is_the_mean_over_all_choices_from_it(count):
    values = torch.tensor([0.5, 0.1, 0.9, 0.1, 0.7, 0.2], dtype=torch.float64)
    choices = [max(chosen) for chosen in itertools.combinations(values.tolist(), count)]
    assert float(best_of(values, count)) == pytest.approx(sum(choices) / len(choices))


def test_of_right_and_wrong_it_is_pass_at_k_for_large_samples_too():
    right = (torch.arange(500) < 40).double()
    for count in (1, 8, 30, 461):
        assert float(best_of(right, count)) == pytest.approx(pass_at_k(500, 40, count), abs=1e-9)


def test_so_many_cannot_be_chosen():
    with pytest.raises(InputError, match="best of count = 3: must be from 1 to 2, the size of the sample"):
        best_of(torch.zeros(2), 3)
    with pytest.raises(InputError, match="best of count = 0: must be at least 1"):
        expected_best(torch.zeros(2), torch.ones(2), 0)
