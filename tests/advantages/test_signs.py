"""One sign of an advantage."""

from __future__ import annotations

import pytest
import torch

from stratagem.advantages import GAE, BatchWhitened, GroupStandardized, LeaveOneOut, Signed
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.recipes import grpo

ROOT = 3**0.5


def test_the_two_signs_of_a_group_worked_by_hand():
    x = Experience.from_lengths([1] * 4, [1] * 4, [4], reward=[1.0, 0, 0, 0])
    whole = GroupStandardized(correction=0, eps=0.0)
    assert whole(x).tolist() == pytest.approx([ROOT, -1 / ROOT, -1 / ROOT, -1 / ROOT])
    positive, negative = (Signed(whole, keep)(x) for keep in ("positive", "negative"))
    assert positive.tolist() == pytest.approx([ROOT, 0, 0, 0])
    assert negative.tolist() == pytest.approx([0, -1 / ROOT, -1 / ROOT, -1 / ROOT])
    assert torch.equal(positive + negative, whole(x))


def test_a_sign_is_taken_of_any_advantage_after_it_is_normalised():
    x = Experience.from_lengths([2, 1], [1, 1], [2], reward=[1.0, 0.0], value=torch.tensor([0.2, 0.4, 0.1]))
    credit = BatchWhitened(GAE())
    assert torch.equal(Signed(credit, "negative")(x), torch.minimum(credit(x), torch.zeros(3)))
    assert Signed(BatchWhitened(GAE())).needs() == {"value"}
    assert torch.equal(Signed(GAE()).value_target(x), GAE().value_target(x))
    assert Signed(LeaveOneOut()).least_group() == 2


def test_a_batch_left_without_the_sign_costs_no_step():
    recipe = grpo().with_values({"advantage": {"part": "signed", "of": "group_standardized", "keep": "negative"}})
    mixed = Experience.from_lengths([1] * 2, [1] * 2, [2], reward=[1.0, 0.0])
    assert recipe.objective.has_signal(recipe.prepare(mixed))
    positive_alone = mixed.replace(mask=torch.tensor([True, False]))
    assert not recipe.objective.has_signal(recipe.prepare(positive_alone))


def test_a_sign_is_positive_or_negative():
    with pytest.raises(InputError, match=r"signed\.keep = 'both'"):
        Signed(GroupStandardized(), "both")
