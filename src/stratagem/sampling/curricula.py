"""Curricula that read the history of start states: each once, by success rate, by learnability, the same by domain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.parts import Curriculum
from stratagem.prompts import Pool


@dataclass(frozen=True)
class Shuffled(Curriculum):
    """Every start state once, in an order at random, before one comes again.

    What was asked for least often comes first, and among equals chance decides. A batch with more groups than there are
    start states has some twice.
    """

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        return first_of(pool.known.draws.double(), groups, source)


@dataclass(frozen=True)
class Domains(Curriculum):
    """As many groups from every domain, whatever their numbers of start states; within one, as another curriculum says.

    Start state ``s`` is of domain ``s mod domains``, as in a mixture of so many tasks. What is left when the groups do
    not divide goes to the domains that were asked for least often, so that it goes round. The batch notes its domains
    (``domain``, ``domain_of_group``), for statistics by domain.

    domains: how many.  of: the rule within a domain.

    Balanced task sampling as in arXiv 2512.12967 is this with :class:`Shuffled`. Raises :class:`InputError` when a
    domain has no start state.
    """

    domains: Annotated[int, Ge(1)] = 1
    of: Curriculum = Shuffled()

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        domain = pool.number % self.domains
        sizes = torch.bincount(domain, minlength=self.domains)
        if bool((sizes == 0).any()):
            raise InputError(
                f"{self.part_name()}.domains = {self.domains}: none of the {len(pool)} start states is of domain "
                f"{int((sizes == 0).nonzero()[0])}"
            )
        asked = torch.bincount(domain, pool.known.draws.double(), minlength=self.domains)
        share = torch.full((self.domains,), groups // self.domains)
        share[asked.argsort(stable=True)[: groups % self.domains]] += 1
        chosen = []
        for number, count in enumerate(share.tolist()):
            place = (domain == number).nonzero().squeeze(1)
            if count:
                chosen.append(place[self.of.choose(pool.at(place), count, source)])
        return torch.cat(chosen)

    def sizes(
        self, pool: Pool, chosen: Int[Tensor, " groups"], group_size: int, source: torch.Generator
    ) -> Int[Tensor, " groups"]:
        return self.of.sizes(pool, chosen, group_size, source)

    def size_bounds(self, groups: int, group_size: int) -> tuple[int, int]:
        return self.of.size_bounds(groups, group_size)

    def domain(self, number: Int[Tensor, " groups"]) -> Int[Tensor, " groups"]:
        return number % self.domains

    def figures(self, pool: Pool) -> dict[str, float]:
        return self.of.figures(pool)


@dataclass(frozen=True)
class _Exploring(Curriculum):
    """A curriculum that gives a share of the groups to start states which were not visited for longest.

    Estimates go stale: without them a start state once found too hard would never be tried again.
    """

    explore: Annotated[float, Ge(0), Le(1)] = 0.1

    def choose(self, pool: Pool, groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
        groups_at_random = self.explore * groups
        strays = math.floor(groups_at_random)
        strays += int(float(torch.rand((), generator=source)) < groups_at_random - strays)
        cost = self.cost(pool, source)
        if not strays:
            return first_of(cost, groups, source)
        seen = pool.known.step.double()
        oldest = first_of(torch.where(pool.known.visits > 0, seen, -1.0), strays, source)
        # Not again what is explored already, as long as there is something else.
        chosen = first_of(cost.index_fill(0, oldest, math.inf), groups - strays, source)
        return torch.cat([chosen, oldest])

    def cost(self, pool: Pool, source: torch.Generator) -> Float64[Tensor, " pool"]:
        """The start states of least cost are chosen; chance decides among equals."""
        raise NotImplementedError


@dataclass(frozen=True)
class SuccessBand(_Exploring):
    """Start states whose recent score lies in ``[low, high]``, and those never visited; the least visited first.

    Where there are too few of them, those nearest to the band are taken, too.

    low, high: of the mean score over the last ``window`` visits.  explore: share of the groups, in [0, 1], that goes to
    start states not visited for longest, whatever their score.
    """

    low: Annotated[float, Ge(0), Le(1)] = 0.2
    high: Annotated[float, Ge(0), Le(1)] = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise InputError(f"{self.part_name()}.low = {self.low}: must be at most high = {self.high}")

    def cost(self, pool: Pool, source: torch.Generator) -> Float64[Tensor, " pool"]:
        score = pool.known.recent_score()
        outside = torch.maximum(self.low - score, score - self.high).clamp(min=0).where(pool.known.visits > 0, 0.0)
        draws = pool.known.draws.double()
        # Any distance from the band counts more than any number of draws.
        return torch.where(outside > 0, 1 + outside, draws / (draws.max() + 1))


@dataclass(frozen=True)
class Learnability(_Exploring):
    """Start states drawn without replacement in proportion to ``p (1 - p) + floor``.

    ``p = (s + 1) / (n + 2)`` is the success rate of their recent visits (``s`` of ``n`` trajectories), 0.5 for those
    never visited: for rewards of 0 and 1 the variance that a group is expected to have.

    floor: above 0, so that nothing is left out for good.  explore: as in :class:`SuccessBand`.
    """

    floor: Annotated[float, Gt(0)] = 1e-3

    def cost(self, pool: Pool, source: torch.Generator) -> Float64[Tensor, " pool"]:
        rate = pool.known.success_rate()
        chance = torch.empty(len(pool), dtype=torch.float64).exponential_(generator=source)
        return chance / (rate * (1 - rate) + self.floor)


def first_of(cost: Float64[Tensor, " pool"], groups: int, source: torch.Generator) -> Int[Tensor, " groups"]:
    """Places of the smallest costs, in order; chance decides among equals. Over and over when there are not enough."""
    shuffled = torch.randperm(len(cost), generator=source)
    order = shuffled[cost[shuffled].argsort(stable=True)]
    return order.repeat(-(-groups // len(order)))[:groups]
