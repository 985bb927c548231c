"""Who allocates: the contract, and allocators that learn nothing (random, greedy, genetic, exact)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float64
from torch import Tensor

from stratagem.allocation.instances import NOBODY, TOLERANCE, Allocation, Instances
from stratagem.allocation.optimum import optimum
from stratagem.part import Part


class Allocator(Part):
    """From instances to one allocation of each."""

    kind: ClassVar[str] = "allocator"

    def __call__(self, instances: Instances, source: torch.Generator) -> Allocation:
        """Whatever is left to chance is of ``source``."""
        raise NotImplementedError


@dataclass(frozen=True)
class RandomAllocation(Allocator):
    """Every free entity joins one of the open tasks, each as likely; tasks that would lose by it are cancelled."""

    def __call__(self, instances: Instances, source: torch.Generator) -> Allocation:
        return instances.without_losses(random_choice(instances, source))


@dataclass(frozen=True)
class GreedyAllocation(Allocator):
    """The task with the best value for its cost first, and to it the entities that bring most for theirs.

    An entity brings ``sum_j min(C_j, left_j) / D_j``, divided by its cost; entities join until the demand is met. Each
    open task is covered so from those that are free, the one with the largest ``value / cost`` among those that gain is
    kept, and the rest is looked at again.
    """

    def __call__(self, instances: Instances, source: torch.Generator) -> Allocation:
        allocation = torch.full_like(instances.cost, NOBODY, dtype=torch.int64)
        opened, free = instances.open, instances.free
        rows = torch.arange(len(instances))
        for _ in range(instances.tasks):
            members, covered = greedy_cover(instances, opened, free)
            cost = torch.einsum("nte,ne->nt", members.to(instances.cost.dtype), instances.cost)
            gains = covered & (instances.value > cost)
            ratio = torch.where(gains, instances.value / cost.clamp(min=TOLERANCE), -1.0)
            best = ratio.argmax(1)
            found = gains[rows, best]
            if not bool(found.any()):
                break
            joins = members[rows, best] & found.unsqueeze(1)
            allocation = torch.where(joins, best.unsqueeze(1), allocation)
            free = free & ~joins
            opened = opened & ~(torch.arange(instances.tasks) == best.unsqueeze(1))
        return allocation


def greedy_cover(
    instances: Instances, opened: Bool[Tensor, "n tasks"], free: Bool[Tensor, "n entities"]
) -> tuple[Bool[Tensor, "n tasks entities"], Bool[Tensor, "n tasks"]]:
    """For every open task alone the free entities that cover it, best first, and whether they do."""
    demand, capacity = instances.demand, instances.capacity
    left = demand.clone()
    members = torch.zeros(*opened.shape, free.shape[1], dtype=torch.bool)
    scale = torch.where(demand > TOLERANCE, 1 / demand.clamp(min=TOLERANCE), 0.0)
    for _ in range(instances.entities):
        wanting = opened & (left > TOLERANCE).any(-1)
        brings = torch.minimum(capacity.unsqueeze(1), left.unsqueeze(2)) * scale.unsqueeze(2)
        ratio = brings.sum(-1) / instances.cost.clamp(min=TOLERANCE).unsqueeze(1)
        able = wanting.unsqueeze(-1) & free.unsqueeze(1) & ~members & (ratio > 0)
        if not bool(able.any()):
            break
        best = ratio.masked_fill(~able, -1.0).argmax(-1, keepdim=True)
        joins = torch.zeros_like(members).scatter(-1, best, able.gather(-1, best))
        members = members | joins
        left = (left - torch.einsum("nte,nek->ntk", joins.to(capacity.dtype), capacity)).clamp(min=0)
    return members, opened & (left <= TOLERANCE).all(-1)


@dataclass(frozen=True)
class GeneticAllocation(Allocator):
    """A genetic algorithm: an individual is an allocation, its fitness what it brings once losses are cancelled.

    The fitter of two individuals becomes a parent; a child has each entity's task from either parent and, with
    probability ``mutation``, a new one (an open task or none). The best individual lives on.

    population: of each instance.  generations: that follow the first, which is random.
    mutation: for every entity; None: 1 over their number.
    """

    population: Annotated[int, Ge(2)] = 40
    generations: Annotated[int, Ge(0)] = 50
    mutation: Annotated[float, Gt(0), Le(1)] | None = None

    def __call__(self, instances: Instances, source: torch.Generator) -> Allocation:
        shape = (len(instances), self.population, instances.entities)
        rate = 1 / instances.entities if self.mutation is None else self.mutation
        people = self._drawn(instances, shape, source)
        fitness = _fitness(instances, people)
        for _ in range(self.generations):
            best = _at(people, fitness.argmax(1, keepdim=True))
            mothers, fathers = (self._parents(people, fitness, source) for _ in range(2))
            children = torch.where(torch.rand(shape, generator=source) < 0.5, mothers, fathers)
            mutates = torch.rand(shape, generator=source) < rate
            children = torch.where(mutates, self._drawn(instances, shape, source), children)
            people = torch.cat([best, children[:, 1:]], 1)
            fitness = _fitness(instances, people)
        return instances.without_losses(_at(people, fitness.argmax(1, keepdim=True)).squeeze(1))

    def _parents(self, people: Tensor, fitness: Tensor, source: torch.Generator) -> Tensor:
        pair = torch.randint(self.population, (2, *fitness.shape), generator=source)
        one, other = pair
        return _at(people, torch.where(fitness.gather(1, one) >= fitness.gather(1, other), one, other))

    def _drawn(self, instances: Instances, shape: tuple[int, int, int], source: torch.Generator) -> Tensor:
        """An open task or none for every entity that is free."""
        odds = torch.cat([torch.ones(len(instances), 1), instances.open.float()], 1)
        drawn = torch.multinomial(odds, shape[1] * shape[2], True, generator=source).view(shape) - 1
        return drawn.masked_fill(~instances.free.unsqueeze(1), NOBODY)


def _at(people: Tensor, number: Tensor) -> Tensor:
    return people.gather(1, number.unsqueeze(-1).expand(-1, -1, people.shape[-1]))


def _fitness(instances: Instances, people: Tensor) -> Float64[Tensor, "n population"]:
    """What :meth:`Instances.total` says of every individual."""
    works = (people.unsqueeze(2) == torch.arange(instances.tasks).view(1, 1, -1, 1)).to(instances.cost.dtype)
    there = torch.einsum("npte,nek->nptk", works, instances.capacity)
    met = instances.open.unsqueeze(1) & ((instances.demand.unsqueeze(1) - there) <= TOLERANCE).all(-1)
    paid = torch.einsum("npte,ne->npt", works, instances.cost)
    brought = torch.where(met, instances.value.unsqueeze(1), 0.0) - paid
    # A task without demands pays even when it is given back what was put to it.
    unasked = instances.open & (instances.demand <= TOLERANCE).all(-1)
    idle = torch.where(unasked, instances.value, 0.0).unsqueeze(1)
    return torch.where(brought > 0, brought, idle).sum(-1)


@dataclass(frozen=True)
class ExactAllocation(Allocator):
    """The best allocation of every instance by itself, by mixed-integer programming (:func:`optimum`).

    gap: relative difference to the bound that is good enough.  seconds: for each instance, in which 16 entities and
    four tasks are usually solved, and 32 and eight are not.
    """

    gap: Annotated[float, Ge(0)] = 0.01
    seconds: Annotated[float, Gt(0)] = 10.0

    def __call__(self, instances: Instances, source: torch.Generator) -> Allocation:
        return instances.without_losses(optimum(instances, self.gap, self.seconds).allocation)


def random_choice(instances: Instances, source: torch.Generator) -> Allocation:
    """An open task for every free entity, each as likely; nobody where none is open."""
    odds = instances.open.double()
    nothing = odds.sum(1, keepdim=True) == 0
    drawn = torch.multinomial(odds + nothing, instances.entities, True, generator=source)
    return drawn.masked_fill(~instances.free | nothing, NOBODY)
