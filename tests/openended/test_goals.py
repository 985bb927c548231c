"""Goals: their truth, what contradicts itself, and how they are written."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import ABSENT, Goals

PREDICATES = ("near a b", "hold c", "see d")


def _all(goals: Goals) -> tuple[torch.Tensor, Goals]:
    """Every assignment of the predicates, and the goal as often."""
    truth = torch.tensor(list(product([True, False], repeat=len(PREDICATES))))
    return truth, goals.at(torch.zeros(len(truth), dtype=torch.int64))


def test_a_goal_of_two_options_has_five_true_rows_of_eight():
    goal = Goals.single([[("near a b", True), ("hold c", False)], [("see d", True)]], PREDICATES)
    truth, goals = _all(goal)
    holds = goals.truth(truth)
    near, hold, see = truth.T
    assert int(holds.sum()) == 5 and int(holds[see].sum()) == 4
    assert torch.equal(holds & ~see, near & ~hold & ~see)
    assert torch.equal(goals.option_truth(truth), torch.stack([near & ~hold, see], 1))


def test_absent_options_and_atoms_make_nothing_true():
    goals = Goals(torch.tensor([[[0, ABSENT], [ABSENT, ABSENT]]]), torch.zeros(1, 2, 2, dtype=torch.bool))
    truth, goals = _all(goals)
    assert torch.equal(goals.truth(truth), truth[:, 0])
    assert goals.present[0].tolist() == [True, False]


def test_a_goal_without_any_option_is_refused():
    with pytest.raises(InputError, match="needs an option"):
        Goals(torch.full((1, 2, 2), ABSENT), torch.zeros(1, 2, 2, dtype=torch.bool))
    with pytest.raises(InputError, match="no predicate 'near x'"):
        Goals.single([[("near x", True)]], PREDICATES)


def test_what_contradicts_itself_is_never_true_and_is_found():
    contradiction = [("hold c", True), ("hold c", False)]
    for options, expected in (
        ([contradiction], True),
        ([contradiction, [("see d", True)]], False),
        ([[("hold c", True), ("see d", False)]], False),
    ):
        truth, goals = _all(Goals.single(options, PREDICATES))
        assert goals.contradictory().all() == expected
        assert bool(goals.truth(truth).any()) == (not expected)


def test_an_option_is_encoded_as_a_set_of_literals():
    goal = Goals.single([[("hold c", True), ("near a b", False)]], PREDICATES)
    assert goal.encoded(3)[0, 0].tolist() == [False, True, False, True, False, False]


def test_a_goal_reads_as_a_person_writes_it():
    goal = Goals.single([[("near a b", True), ("hold c", False)], [("see d", True)]], PREDICATES)
    assert goal.text(0, PREDICATES) == "(near a b and not hold c) or see d"
    assert Goals.single([[("hold c", True)]], PREDICATES).text(0, PREDICATES) == "hold c"
