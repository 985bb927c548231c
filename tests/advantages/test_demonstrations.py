"""Credit of rollouts and of demonstrations in one batch."""

from __future__ import annotations

import math

import pytest
import torch

from stratagem.advantages import GAE, GroupCentered, GroupStandardized, WithDemonstrations
from stratagem.errors import InputError
from stratagem.experience import Experience


def batch(**fields) -> Experience:
    """Two groups of two rollouts and a demonstration, which stands last in the first and first in the second."""
    given = {
        "reward": [1.0, 0.0, 1.0, 1.0, 0.0, 0.0],
        "success": [True, False, True, True, False, False],
        "demonstrated": [False, False, True, True, False, False],
    }
    return Experience.from_lengths([1, 2, 2, 1, 1, 1], [1] * 6, [3, 3], **(given | fields))


def test_demonstrations_do_not_move_the_baseline_of_rollouts():
    credit = WithDemonstrations(GroupCentered(), value=2.0)(batch())
    assert credit.tolist() == [0.5, -0.5, -0.5, 2.0, 2.0, 2.0, 0.0, 0.0]


def test_nor_the_deviation():
    own = batch().select(torch.tensor([0, 1]))
    credit = WithDemonstrations(GroupStandardized())(batch())
    assert torch.equal(credit[:3], GroupStandardized()(own))


def test_without_demonstrations_it_is_the_advantage_itself():
    for x in (batch(demonstrated=None), batch(demonstrated=[False] * 6)):
        assert torch.equal(WithDemonstrations(GroupCentered())(x), GroupCentered()(x))


def test_demonstrations_alone_are_worth_their_value():
    x = batch(demonstrated=[True] * 6)
    assert WithDemonstrations(GroupCentered(), value=0.5)(x).tolist() == [0.5] * 8


def test_the_linear_blend_shows_a_group_as_much_as_it_fails():
    blended = WithDemonstrations(GroupCentered(), blend="linear")
    credit = blended(batch(pass_rate=torch.tensor([0.75, 0.0])))
    assert credit.tolist() == pytest.approx([0.375, -0.375, -0.375, 0.25, 0.25, 1.0, 0.0, 0.0])


def test_the_sigmoid_blend_is_even_at_its_gate_and_nearly_hard_when_narrow():
    x = batch(pass_rate=torch.tensor([0.25, 0.75]))
    credit = WithDemonstrations(GroupCentered(), blend="sigmoid", gate=0.25, width=0.125)(x)
    # (0.75 - 0.25) / 0.125 = 4 in the second group.
    beta = 1 - 1 / (1 + math.exp(-4))
    assert credit.tolist() == pytest.approx([0.25, -0.25, -0.25, 0.5, 0.5, beta, 0.0, 0.0], rel=1e-5)
    narrow = WithDemonstrations(GroupCentered(), blend="sigmoid", gate=0.5, width=1e-3)(x)
    assert narrow.tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def test_a_critic_learns_from_rollouts_as_without_demonstrations():
    x = batch(value=torch.arange(8.0))
    assert torch.equal(WithDemonstrations(GAE()).value_target(x), GAE().value_target(x))


def test_only_a_blend_reads_the_pass_rate():
    assert "pass_rate" not in WithDemonstrations(GroupCentered()).needs()
    assert "pass_rate" in WithDemonstrations(GroupCentered(), blend="linear").needs()
    with pytest.raises(ValueError, match=r"needs x\.pass_rate"):
        WithDemonstrations(GroupCentered(), blend="linear")(batch())


def test_groups_must_be_as_large_as_the_inner_advantage_asks():
    assert WithDemonstrations(GroupCentered()).least_group() == 2
    assert WithDemonstrations(GAE()).least_group() == 1


@pytest.mark.parametrize("fields", [{"gate": 0.5}, {"blend": "linear", "width": 0.5}, {"blend": "sigmoid", "width": 0}])
def test_numbers_that_no_blend_reads_or_out_of_range_are_refused(fields):
    with pytest.raises(InputError, match="with_demonstrations"):
        WithDemonstrations(GroupCentered(), **fields)
