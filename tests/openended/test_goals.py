"""Goals: their truth, what contradicts itself, and how they are written."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from stratagem.errors import InputError
from stratagem.openended import ABSENT, Goals
from stratagem.seeding import generator

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


def _random_goals(options: int, atoms: int, count: int = 60, predicates: int = 4) -> Goals:
    source = generator(options * 10 + atoms)
    atom = torch.randint(predicates, (count, options, atoms), generator=source)
    size = torch.randint(0, atoms + 1, (count, options, 1), generator=source)
    size[:, -1] = size[:, -1].clamp(min=1)
    atom = torch.where(torch.arange(atoms) < size, atom, ABSENT)
    return Goals(atom, torch.rand(atom.shape, generator=source) < 0.5)


@pytest.mark.parametrize(("options", "atoms"), [(1, 1), (1, 3), (3, 1), (2, 2), (3, 2)])
def test_an_opposite_is_true_exactly_where_the_goal_is_not_and_small_ones_have_the_same_size(options, atoms):
    goals = _random_goals(options, atoms)
    small = goals.with_small_opposites()
    opposite, small_opposite = goals.opposite(), small.opposite().resized(options, atoms)
    for row in product([True, False], repeat=4):
        truth = torch.tensor(row).expand(len(goals), 4)
        assert torch.equal(goals.truth(truth), ~opposite.truth(truth))
        assert torch.equal(small.truth(truth), ~small_opposite.truth(truth))


def test_the_opposite_of_two_options_is_worked_out_by_hand():
    goal = Goals.single([[("near a b", True), ("hold c", False)], [("see d", True)]], PREDICATES)
    opposite = goal.opposite()
    assert opposite.text(0, PREDICATES) == "(not near a b and not see d) or (hold c and not see d)"
    assert goal.with_small_opposites().text(0, PREDICATES) == goal.text(0, PREDICATES), "it fits as it is"


def test_a_goal_whose_opposite_is_too_large_loses_atoms_of_its_last_options():
    two = [("near a b", True), ("hold c", True)]
    goal = Goals.single([two, [("see d", True), ("hold c", False)]], PREDICATES)
    assert goal.with_small_opposites().text(0, PREDICATES) == "(near a b and hold c) or see d"
    assert Goals.single([two], PREDICATES).with_small_opposites().text(0, PREDICATES) == "near a b"
    alone = Goals.single([[("near a b", True)], [("see d", True)]], PREDICATES)
    assert alone.with_small_opposites().text(0, PREDICATES) == "near a b"


def test_goals_may_be_renamed_and_given_more_room_but_not_too_little():
    goal = Goals.single([[("near a b", True), ("hold c", False)], [("see d", True)]], PREDICATES)
    renamed = goal.renamed(torch.tensor([[2, 0, 1]]))
    assert renamed.text(0, PREDICATES) == "(see d and not near a b) or hold c"
    assert goal.resized(4, 3).text(0, PREDICATES) == goal.text(0, PREDICATES)
    assert goal.resized(4, 3).atom.shape == (1, 4, 3)
    for room in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="do not fit"):
            goal.resized(*room)
