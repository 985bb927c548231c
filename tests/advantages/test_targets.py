"""Targets of the ratio by a group's median, worked by hand and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stratagem.advantages import GroupCentered, GroupQuantileTarget, GroupStandardized
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.recipe import Recipe
from stratagem.recipes import grpo


def groups(*rewards: list[float], tokens: int = 1) -> Experience:
    flat = [reward for group in rewards for reward in group]
    sizes = [len(group) for group in rewards]
    return Experience.from_lengths([tokens] * len(flat), [1] * len(flat), sizes, reward=torch.tensor(flat))


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1.0, 0, 0, 0], [1.3, 1, 1, 1]),  # the majority's outcome is the median: held
        ([1.0, 1, 1, 0], [1, 1, 1, 0.7]),
        ([1.0, 1, 0, 0], [1.3, 1.3, 0.7, 0.7]),
        ([2.0, 0, 1], [1.3, 0.7, 1]),
        ([0.5, 0.5], [1, 1]),
    ],
)
def test_targets_worked_by_hand(rewards, expected):
    target = GroupQuantileTarget().target(groups(rewards))
    assert target.tolist() == pytest.approx(expected)
    held = [value == 1 for value in expected]
    assert [value == 1 for value in target.tolist()] == held  # exactly


def test_the_credit_is_that_of_the_advantage_it_is_of():
    x = groups([1.0, 0, 0, 0], [2.0, 2, 1])
    for of in (GroupStandardized(), GroupCentered()):
        assert torch.equal(GroupQuantileTarget(of)(x), of(x))
    assert GroupQuantileTarget()(groups([1.0, 0, 0, 0])).tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


@given(
    st.lists(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=7), min_size=1, max_size=3),
    st.floats(0, 0.9),
    st.floats(0, 2),
    st.sampled_from([0.3, 1.0, 20.0]),
    st.floats(0, 1),
    st.booleans(),
)
def test_targets_equal_those_of_a_loop(rewards, low, high, temperature, quantile, standardize):
    part = GroupQuantileTarget(low=low, high=high, temperature=temperature, quantile=quantile, standardize=standardize)
    expected = []
    for group in map(np.array, rewards):
        scale = group.std(ddof=1) + 1e-6 if standardize else 1.0
        score = (group - np.quantile(group, quantile)) / scale / temperature
        expected += (1 - low + (low + high) / (1 + np.exp(-score))).tolist()
    target = part.target(groups(*rewards, tokens=2))
    assert target[::2].tolist() == pytest.approx(expected, abs=2e-4)
    assert torch.equal(target[::2], target[1::2])


def test_a_cold_target_is_a_bound_and_a_hot_one_stays_put():
    x = groups([3.0, 1.0, 0.0, 2.0])
    assert GroupQuantileTarget(temperature=1e-9).target(x).tolist() == pytest.approx([1.3, 0.7, 0.7, 1.3])
    assert GroupQuantileTarget(temperature=1e9).target(x).tolist() == pytest.approx([1.0] * 4)


def test_with_unequal_bounds_the_threshold_of_the_exact_solution_keeps_the_mean_at_1():
    # 0.2 / (0.2 + 0.3) of four fifths: with five returns the quantile 0.6 lies between the third and the fourth.
    x = groups([1.0, 2.0, 3.0, 4.0, 5.0])
    target = GroupQuantileTarget(low=0.2, high=0.3, quantile=0.3 / 0.5).target(x)
    assert target.tolist() == pytest.approx([0.8, 0.8, 0.8, 1.3, 1.3])
    assert target.mean().item() == pytest.approx(1.0)


def test_the_recipe_sets_the_target_where_credit_is_given_and_none_where_nobody_says_one():
    recipe = grpo().replace(advantage=2.0 * GroupQuantileTarget() + GroupCentered())
    ready = recipe.prepare(groups([1.0, 0, 0, 0], tokens=2))
    assert ready.target.tolist() == pytest.approx([1.3, 1.3, *[1] * 6])
    assert ready.advantage[0].item() == pytest.approx(3.75, abs=1e-5)
    # Half of a group knows what its whole aimed for.
    assert ready.select(torch.tensor([0])).target.tolist() == pytest.approx([1.3, 1.3])
    assert grpo().prepare(groups([1.0, 0.0])).target is None


@pytest.mark.parametrize(
    ("field", "value"), [("low", 1.0), ("low", -0.1), ("high", -0.1), ("temperature", 0.0), ("quantile", 1.1)]
)
def test_a_number_out_of_range_is_named(field, value):
    with pytest.raises(InputError, match=rf"group_quantile_target\.{field} = {value}"):
        GroupQuantileTarget(**{field: value})


def test_a_group_of_one_is_refused():
    with pytest.raises(InputError, match=r"group_quantile_target compares within a group and needs at least 2"):
        Recipe("alone", grpo().sampler.replace(group_size=1), GroupQuantileTarget(), grpo().objective)
