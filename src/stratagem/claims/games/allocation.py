"""The claim of allocating entities to tasks in two stages."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache

from stratagem.allocation import (
    SMALL,
    Allocate,
    AllocationTask,
    ExactAllocation,
    GeneticAllocation,
    GreedyAllocation,
    RandomAllocation,
    TwoStageAllocation,
    TwoStagePolicy,
    find_task,
    play,
)
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim

DECISIONS, EPISODES = 5000, 12

TASK = find_task("allocation:dynamic")

LARGER = replace(TASK, slots=8, entities=32, backlog=60)


@cache
def _learned(seed: int, pre_assign: bool) -> TwoStagePolicy:
    technique = TwoStageAllocation(**SMALL, pre_assign=pre_assign)
    return technique.train(TASK, DECISIONS, derive(seed, "train"))


def _returns(seed: int, task: AllocationTask) -> dict[str, float]:
    """Mean return of every allocator on the same episodes."""
    allocators: dict[str, Allocate] = {
        "two_stage": _learned(seed, True).allocate,
        "without_pre_assign": _learned(seed, False).allocate,
        "genetic": GeneticAllocation(),
        "greedy": GreedyAllocation(),
        "random": RandomAllocation(),
    }
    held_out = derive(seed, "held out", task.entities)
    return {name: float(play(one, task, EPISODES, held_out)[0].mean()) for name, one in allocators.items()}


@claim(
    "two_stage_allocation",
    statement="A policy that pre-assigns and selects beats genetic algorithms and other heuristics in dynamic "
    "allocation, and does so zero-shot for numbers of tasks and entities it has not met.",
    source="arXiv 2407.00496, abstract (RBF and material environments)",
    baseline="a genetic algorithm (40 individuals, 50 generations) and a greedy heuristic, anew in every step",
    rule=(
        Expect("over_genetic", above=1),
        Expect("over_greedy", above=1),
        Expect("larger_over_genetic", above=1),
    ),
    scale="Four slots and sixteen entities of three capacities on a 7x7 grid, 50 steps, 12 held-out episodes; learned "
    "from 5,000 decisions (8,000 in a first version, which took too long) with "
    "Adam of 1e-3 (published: 1e-5 and far more decisions), eight updates of 32 transitions after every 32 decisions "
    "(published: 32 of them; two of 128 in a first version: on four development seeds .79 of greedy against .84). "
    "Larger: eight slots and 32 entities, the same weights. The ablation in which tasks pick one after another among "
    "all entities learns from as many decisions (over_without_pre_assign). share_of_optimum: of two single "
    "allocations, by mixed-integer programming within two seconds each; there nobody who volunteered in vain gets a "
    "second chance. A development run was seen before the rule was written. What holds it back is that an entity sees "
    "its own attributes and the tasks', not the other entities, so that those that look alike choose alike. By "
    "enumeration, with three tasks that stay and four entities of four kinds, the best map from attributes to tasks "
    "earns .64 to .74 of the optimum, and training reaches .89 to 1.00 of that best map (four development seeds). In "
    "the dynamic task of this claim an unbiased policy gradient on the same first stage, followed by the greedy "
    "choice among volunteers, reached .94 of greedy in as many decisions and .96 in six times as many. "
    "The released code evaluates policies that still sample, on the "
    "same thirty tasks and entities in the same order as it learned from; here all is drawn anew.",
)
def two_stage_allocation(seed: int) -> dict[str, float]:
    """Ratios of mean returns, the share of the optimum in single allocations, and milliseconds of a decision."""
    usual, larger = _returns(seed, TASK), _returns(seed, LARGER)
    single = find_task("allocation:static").draw(2, derive(seed, "single"))
    policy = _learned(seed, True)
    best = single.total(ExactAllocation(0.02, 2.0)(single, generator(seed))).sum()
    began = time.perf_counter()
    mine = single.total(policy.allocate(single, generator(seed))).sum()
    decision = (time.perf_counter() - began) / len(single)
    return {
        "over_genetic": usual["two_stage"] / usual["genetic"],
        "over_greedy": usual["two_stage"] / usual["greedy"],
        "over_random": usual["two_stage"] / usual["random"],
        "over_without_pre_assign": usual["two_stage"] / usual["without_pre_assign"],
        "larger_over_genetic": larger["two_stage"] / larger["genetic"],
        "larger_over_greedy": larger["two_stage"] / larger["greedy"],
        "larger_over_random": larger["two_stage"] / larger["random"],
        "larger_over_without_pre_assign": larger["two_stage"] / larger["without_pre_assign"],
        "share_of_optimum": float(mine / best),
        "milliseconds": 1000 * decision,
    }
