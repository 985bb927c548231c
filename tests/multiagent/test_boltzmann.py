"""Boltzmann exploration and its index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.errors import InputError
from stratagem.multiagent.boltzmann import Annealing, boltzmann, exploration_index


@pytest.mark.parametrize(("start", "index"), [(0.727, 0.57025), (0.127, 0.12025), (0.1, 0.1)])
def test_the_index_of_a_line_is_three_parts_start_and_one_part_end(start, index):
    assert Annealing(start).index == pytest.approx(index, abs=1e-4)


@given(st.floats(0, 2), st.floats(0, 2), st.integers(1000, 3000))
def test_the_index_comes_near_its_limit_for_any_line(start, end, steps):
    assert Annealing(start, end, steps).index == pytest.approx((3 * start + end) / 4, abs=2e-3)


def test_the_index_takes_schedules_of_any_shape():
    assert exploration_index(np.array([1.0, 0.5, 9.0, 9.0])) == 0.75
    assert exploration_index(np.array([0.3])) == 0.3


def test_temperatures_begin_at_the_start_and_end_before_the_end():
    found = Annealing(1.0, 0.2, 4).temperatures()
    np.testing.assert_allclose(found, [1.0, 0.8, 0.6, 0.4])


def test_probabilities_are_those_of_boltzmann():
    values = torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    expected = (values / 0.5).softmax(-1)
    torch.testing.assert_close(boltzmann(values, 0.5), expected)
    torch.testing.assert_close(boltzmann(values, torch.tensor([0.5, 0.5])), expected)


def test_each_row_may_have_a_temperature_of_its_own():
    found = boltzmann(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([1.0, 1e9]))
    assert found[0, 0] == pytest.approx(0.731059, abs=1e-5) and found[1, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-9, torch.tensor(0.0)])
def test_the_coldest_is_greedy_and_splits_ties(temperature):
    values = torch.tensor([[1e4, 1e4 + 1], [3.0, 3.0]])
    found = boltzmann(values, temperature)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.5, 0.5]]))


@pytest.mark.parametrize("wrong", [{"start": -0.1}, {"end": -1.0}, {"steps": 0}])
def test_schedules_that_are_none_are_refused(wrong):
    with pytest.raises(InputError, match="annealing: "):
        Annealing(**wrong)
