"""Heuristics and the exact optimum against enumeration."""

from __future__ import annotations

import pytest
import torch

from stratagem.allocation import (
    NOBODY,
    AllocationTask,
    ExactAllocation,
    GeneticAllocation,
    GreedyAllocation,
    Instances,
    RandomAllocation,
    optimum,
)
from stratagem.errors import InputError
from stratagem.seeding import generator

SMALL = AllocationTask("small", entities=5, slots=3, kinds=2, demand=(3, 14), capacity=(1, 9), cost=(0.1, 4))

ALL = (RandomAllocation(), GreedyAllocation(), GeneticAllocation(10, 5), ExactAllocation(0.0))


def every_allocation(instances: Instances) -> torch.Tensor:
    """All ``(tasks + 1) ** entities`` allocations of an instance of this size."""
    choices = torch.arange(-1, instances.tasks)
    return torch.cartesian_prod(*[choices] * instances.entities).view(-1, instances.entities)


def _masked(count: int, seed: int) -> Instances:
    """Instances with closed tasks and busy entities, some of them with neither open nor free ones."""
    drawn, source = SMALL.draw(count, seed), generator(seed, "masks")
    masks = {"open": torch.rand(drawn.value.shape, generator=source) < 0.6}
    masks["free"] = torch.rand(drawn.cost.shape, generator=source) < 0.6
    masks["open"][0], masks["free"][1] = False, False
    return Instances(**{**vars(drawn), **masks})


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_the_best_of_all_allocations(seed):
    drawn = SMALL.draw(1, seed)
    everything = every_allocation(drawn)
    best = drawn.repeat(len(everything)).total(everything).max().item()
    found = optimum(drawn)
    assert found.value.item() == pytest.approx(best, abs=1e-6)
    assert found.bound.item() == pytest.approx(best, abs=1e-5)


def test_the_optimum_of_the_trap_is_seventeen(trap):
    assert optimum(trap).value.item() == pytest.approx(17)
    assert trap.total(GreedyAllocation()(trap, generator(0))).item() == 17


def test_greedy_is_caught_where_the_best_ratio_takes_the_only_entity_that_another_task_needs():
    # The strong entity is best for either task, but only it covers the second.
    one = Instances.single([(10, [5]), (19, [10])], [(1, [10]), (4, [5])])
    greedy = GreedyAllocation()(one, generator(0))
    assert one.total(greedy).item() == pytest.approx(18 + 6)
    caught = Instances.single([(20, [5]), (19, [10])], [(1, [10]), (4, [5])])
    greedy = GreedyAllocation()(caught, generator(0))
    assert greedy.tolist() == [[0, NOBODY]] and caught.total(greedy).item() == 19
    assert optimum(caught).value.item() == pytest.approx(34)


def test_no_allocator_beats_the_optimum_and_none_uses_what_is_not_there():
    drawn = _masked(12, 3)
    best = optimum(drawn).value
    for allocator in ALL:
        allocation = allocator(drawn, generator(1, "chance"))
        total = drawn.total(allocation)  # raises for what is closed or busy
        assert (total <= best + 1e-6).all(), allocator
        assert (drawn.worth(allocation)[drawn.open] >= 0).all()
        assert allocation[:2].eq(NOBODY).all()
    torch.testing.assert_close(drawn.total(ALL[-1](drawn, generator(0))), best)


def test_better_allocators_earn_more():
    drawn = AllocationTask("static").draw(32, 1000)
    random, greedy, genetic = (drawn.total(one(drawn, generator(0))).mean() for one in (ALL[0], ALL[1], ALL[2]))
    more = drawn.total(GeneticAllocation()(drawn, generator(0))).mean()
    assert random < genetic < more and random < greedy


def test_fitness_is_what_an_allocation_brings_even_where_a_task_demands_nothing():
    from stratagem.allocation.allocators import _fitness

    one = Instances.single([(5, [0]), (4, [3]), (0.5, [0])], [(1, [3]), (9, [1])])
    everything = every_allocation(one)
    assert torch.equal(_fitness(one, everything.unsqueeze(0))[0], one.repeat(len(everything)).total(everything))


def test_a_choice_of_the_same_source_is_the_same():
    drawn = SMALL.draw(6, 1)
    for allocator in ALL:
        assert torch.equal(allocator(drawn, generator(5)), allocator(drawn, generator(5)))


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match=r"genetic_allocation\.population"):
        GeneticAllocation(population=1)
