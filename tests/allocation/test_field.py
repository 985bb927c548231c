"""Tasks by name, and what becomes of an allocation over time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stratagem.allocation import NOBODY, PRESETS, AllocationTask, Field, GreedyAllocation, RandomAllocation, find_task
from stratagem.errors import InputError
from stratagem.seeding import generator

ONE = AllocationTask(
    "one", entities=2, slots=1, kinds=1, steps=20, backlog=2, side=5, refill=3, patience=1, decay=0.5,
    value=(8, 8), demand=(2, 2), cost=(1, 1), capacity=(1, 1),
)  # fmt: skip


def _field(task: AllocationTask, cells: list[tuple[int, int]]) -> Field:
    """A field whose tasks lie in these cells."""
    field = Field(task, 1, 0)
    field.offered.cell[0] = torch.tensor(cells)
    return field


BOTH, NONE = torch.tensor([[0, 0]]), torch.tensor([[NOBODY, NOBODY]])


def test_entities_walk_a_cell_a_step_and_the_task_pays_when_they_are_there():
    field = _field(ONE, [(4, 3), (2, 2)])  # three steps from the centre
    earned = [field.step(BOTH).item()]
    assert field.position.tolist() == [[[3, 2], [3, 2]]] and not field.instances.free.any()
    assert not field.instances.open.any()
    earned += [field.step(NONE).item(), field.step(NONE).item()]
    # It has waited two steps, one more than its patience, when the third begins.
    assert earned == [0, 0, 8 * 0.5 - 2]
    assert field.instances.free.all() and field.slot.tolist() == [[1]], "filled after the third step"


def test_diagonal_steps_are_shorter_and_used_entities_can_be_gone():
    field = _field(replace(ONE, diagonal=True, consumed=True), [(4, 4), (2, 2)])
    assert [field.step(BOTH).item(), field.step(NONE).item()] == [0, 6]
    assert not field.instances.free.any()


def test_the_value_of_a_task_falls_after_its_patience():
    field = _field(ONE, [(2, 2), (2, 2)])
    values = []
    for _ in range(4):
        values.append(field.instances.value.item())
        field.step(NONE)
    assert values == [8, 8, 4, 2]


def test_an_allocation_that_does_not_cover_is_left_alone():
    field = _field(ONE, [(2, 2), (2, 2)])
    assert field.step(torch.tensor([[0, NOBODY]])).item() == 0
    assert field.instances.free.all() and field.instances.open.all()
    assert field.step(BOTH).item() == 6


def test_a_task_without_demands_pays_once():
    field = Field(replace(ONE, demand=(0, 0), backlog=1), 1, 0)
    earned = []
    while not field.done:
        earned.append(field.step(NONE).item())
    assert earned == [8]


def test_slots_are_refilled_in_turn_until_none_is_left_and_then_it_is_over():
    field = _field(ONE, [(2, 2), (2, 2)])
    assert field.step(BOTH).item() == 6 and not field.instances.open.any()
    field.step(NONE)
    field.step(NONE)
    assert field.instances.open.all()
    assert field.step(BOTH).item() == 6
    assert field.done
    with pytest.raises(ValueError, match="over"):
        field.step(NONE)


def test_a_single_allocation_is_an_episode_of_one_step():
    field = Field(find_task("allocation:static"), 5, 3)
    first = field.instances
    total = first.total(GreedyAllocation()(first, generator(0)))
    assert torch.equal(field.step(GreedyAllocation()(first, generator(0))), total) and field.done
    field.restart()
    assert not torch.equal(field.instances.value, first.value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_task_can_be_played_to_its_end(name):
    task = replace(PRESETS[name], steps=min(PRESETS[name].steps, 12))
    one, other = Field(task, 3, 7), Field(task, 3, 7)
    while not one.done:
        allocation = RandomAllocation()(one.instances, generator(0, one.step_number))
        assert torch.equal(one.step(allocation), other.step(allocation))
    assert other.done


def test_entities_and_tasks_never_earn_more_than_all_there_is():
    task = PRESETS["dynamic"]
    field = Field(task, 4, 1)
    everything = field.offered.value.sum(-1)
    earned = torch.zeros(4, dtype=torch.float64)
    while not field.done:
        earned += field.step(GreedyAllocation()(field.instances, generator(0)))
    assert (earned > 0).all() and (earned < everything).all()


def test_options_change_a_preset_and_wrong_ones_are_refused():
    task = find_task("allocation:static,slots=8,entities=32")
    assert (task.slots, task.entities) == (8, 32) and task.draw(2, 0).value.shape == (2, 8)
    for spec, said in (
        ("allocation", "write allocation:NAME"),
        ("bandit:plain", "write allocation:NAME"),
        ("allocation:statick", "static"),
        ("allocation:static,slot=3", "slots"),
        ("allocation:static,slots=0", "slots='0' is not allowed"),
    ):
        with pytest.raises(InputError, match=said):
            find_task(spec)
    with pytest.raises(InputError, match="low <= high"):
        AllocationTask("wrong", cost=(2, 1))
    with pytest.raises(InputError, match="at least 1"):
        task.draw(0, 0)
