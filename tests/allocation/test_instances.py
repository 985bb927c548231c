"""What allocations are worth, and what is refused."""

from __future__ import annotations

import pytest
import torch

from stratagem.allocation import NOBODY, Instances
from stratagem.errors import InputError


def test_a_task_pays_once_if_it_is_covered_in_every_kind_and_its_entities_cost_anyway():
    one = Instances.single([(5, [4, 4])], [(1, [4, 1]), (2, [1, 3]), (0.5, [0, 9])])
    assert one.worth(torch.tensor([[0, 0, NOBODY]])).tolist() == [[2.0]]
    assert one.worth(torch.tensor([[0, NOBODY, NOBODY]])).tolist() == [[-1.0]]
    assert one.worth(torch.tensor([[0, NOBODY, 0]])).tolist() == [[3.5]]


def test_the_trap_is_worth_seventeen_with_one_each_and_twelve_with_two_on_the_first(trap):
    assert trap.total(torch.tensor([[0, 1, NOBODY]])).item() == 17
    assert trap.total(torch.tensor([[0, 0, 1]])).item() == 12


def test_a_task_that_would_lose_is_cancelled_and_its_entities_are_free_again():
    one = Instances.single([(5, [10]), (3, [1])], [(3, [6]), (3, [6]), (1, [1])])
    allocation = torch.tensor([[0, 0, 1]])
    assert one.worth(allocation).tolist() == [[-1.0, 2.0]]
    assert one.without_losses(allocation).tolist() == [[NOBODY, NOBODY, 1]]
    assert one.total(allocation).item() == 2


def test_what_cannot_be_covered_costs_and_is_cancelled():
    one = Instances.single([(5, [10])], [(1, [2]), (1, [3])])
    assert one.worth(torch.tensor([[0, 0]])).item() == -2
    assert one.total(torch.tensor([[0, 0]])).item() == 0


def test_a_task_without_demands_pays_once_and_needs_nobody():
    one = Instances.single([(5, [0]), (4, [3])], [(1, [3])])
    assert one.total(torch.tensor([[NOBODY]])).item() == 5
    assert one.total(torch.tensor([[1]])).item() == 8


def test_closed_tasks_pay_nothing_whatever_they_hold():
    nan = float("nan")
    one = Instances.of(
        torch.tensor([[nan, 4.0]]),
        torch.tensor([[[nan], [2.0]]]),
        torch.tensor([[1.0, nan]]),
        torch.tensor([[[2.0], [1.0]]]),
        torch.tensor([[False, True]]),
        torch.tensor([[True, False]]),
    )
    assert one.members(torch.tensor([[1, NOBODY]])).sum() == 1
    with pytest.raises(ValueError, match="not open"):
        one.worth(torch.tensor([[0, NOBODY]]))
    with pytest.raises(ValueError, match="not free"):
        one.worth(torch.tensor([[NOBODY, 1]]))


def test_a_task_there_is_not_is_refused(trap):
    with pytest.raises(ValueError, match="one of 2 tasks"):
        trap.worth(torch.tensor([[0, 2, NOBODY]]))


@pytest.mark.parametrize(
    ("tasks", "entities", "said"),
    [
        ([(-1, [1])], [(1, [1])], "numbers of a task"),
        ([(1, [1])], [(float("inf"), [1])], "numbers of a entity"),
        ([(1, [1, 2])], [(1, [1])], "demands are of 2 kinds, capacities of 1"),
    ],
)
def test_numbers_that_make_no_instance_are_refused(tasks, entities, said):
    with pytest.raises(InputError, match=said):
        Instances.single(tasks, entities)
