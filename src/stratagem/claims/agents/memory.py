"""Claims of memory outside the weights: what learned utilities add to similarity, and what they forget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from stratagem.memory import Attempt, EpisodicMemory, Solved, Store
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim

TYPES, WRITTEN, VISITS, WIDTH = 200, 4, 15, 24
"""Types of tasks, experiences written of each, tasks of each, and dimensions of the embedding."""

HARMFUL, HELP, BASE = 0.3, 2.0, -0.5
"""Share of experiences that mislead; what one does to the log-odds of success, either way; those without any."""

NOISE = 0.08
"""Standard deviation by which a text's embedding is off its type's, in each dimension."""


@dataclass(frozen=True)
class _World:
    """Types of tasks with their embeddings; texts are ``task TYPE NUMBER`` and ``experience TYPE NUMBER``."""

    seed: int
    experiences: Tensor
    tasks: Tensor
    harmful: Tensor
    luck: Tensor

    @classmethod
    def of(cls, seed: int) -> _World:
        source = generator(seed, "memory")
        centers = torch.nn.functional.normalize(torch.randn(TYPES, 1, WIDTH, generator=source), dim=-1)
        experiences = centers + NOISE * torch.randn(TYPES, WRITTEN, WIDTH, generator=source)
        tasks = centers + NOISE * torch.randn(TYPES, VISITS, WIDTH, generator=source)
        harmful = torch.rand(TYPES, WRITTEN, generator=source) < HARMFUL
        return cls(seed, experiences, tasks, harmful, torch.rand(TYPES, VISITS, generator=source))

    def __call__(self, texts: Sequence[str], /) -> Tensor:
        return torch.stack([self._row(text) for text in texts])

    def _row(self, text: str) -> Tensor:
        kind, of, number = text.split()
        return (self.experiences if kind == "experience" else self.tasks)[int(of), int(number)]

    def store(self) -> Store:
        """Every experience under an intent of its own."""
        store = Store(self)
        for of in range(TYPES):
            for number in range(WRITTEN):
                store.add(f"experience {of} {number}", f"{of} {number}", 0.0)
        return store

    def misleads(self, task: str, experience: str) -> bool:
        of, number = experience.split()
        return task.split()[1] == of and bool(self.harmful[int(of), int(number)])

    def chance(self, task: str, experiences: Sequence[str]) -> float:
        """Of success: of several experiences the mean effect counts; those of other types have none."""
        of = task.split()[1]
        effects = [
            0.0 if experience.split()[0] != of else -HELP if self.misleads(task, experience) else HELP
            for experience in experiences
        ]
        return 1 / (1 + math.exp(-(BASE + (fmean(effects) if effects else 0.0))))

    def solve(self, task: str, experiences: Sequence[str]) -> Attempt:
        _, of, number = task.split()
        return Attempt(1.0 if self.luck[int(of), int(number)] < self.chance(task, experiences) else -1.0)

    def stream(self, name: str, types: range) -> list[str]:
        """All tasks of these types but the last of each, in random order."""
        tasks = [f"task {of} {number}" for of in types for number in range(VISITS - 1)]
        order = torch.randperm(len(tasks), generator=generator(self.seed, name))
        return [tasks[place] for place in order.tolist()]


@dataclass(frozen=True)
class _Run:
    """Of one rule: success and share of misleading experiences over both streams, chance on old types in between."""

    success: float
    misled: float
    before: float
    after: float


def _run(world: _World, memory: EpisodicMemory) -> _Run:
    """First the older half of the types, then the newer; in between and at the end, tasks of the old ones not met."""
    store = world.store()
    older, newer = range(TYPES // 2), range(TYPES // 2, TYPES)
    unmet = [f"task {of} {VISITS - 1}" for of in older]

    def chance() -> float:
        found = memory.play(store, unmet, world.solve, learn=False)
        return fmean(world.chance(solved.task, solved.retrieval.experiences) for solved in found)

    first = list(memory.play(store, world.stream("older", older), world.solve))
    before = chance()
    second = list(memory.play(store, world.stream("newer", newer), world.solve))
    return _Run(_success(first + second), _misled(world, first + second), before, chance())


def _success(stream: Sequence[Solved[str]]) -> float:
    return fmean(solved.attempt.reward == 1.0 for solved in stream)


def _misled(world: _World, stream: Sequence[Solved[str]]) -> float:
    return fmean(world.misleads(one.task, shown) for one in stream for shown in one.retrieval.experiences)


@claim(
    "memrl",
    statement="A frozen solver that is shown experiences by similarity first and learned utility second beats memory "
    "that goes by similarity alone on HLE, BigCodeBench, ALFWorld and Lifelong Agent Bench, for it learns to tell high "
    "value from similar noise, and improves while running without forgetting.",
    source="arXiv 2601.03192, abstract (its tables were not available)",
    baseline="the same retrieval with no weight on utility; and three of the five nearest experiences at random",
    rule=(
        Expect("success_gain", above=0),
        Expect("gain_over_random", above=0),
        Expect("misleading_over_similarity", below=1),
        Expect("forgotten", below=0.02),
    ),
    scale="A simulated solver: 200 types of tasks, 14 tasks of each, four experiences of each in the store from the "
    "start, of which 30 % mislead and look like the others; the log-odds of success move by the mean effect of the "
    "three experiences shown. The embedding tells types apart, and whether an experience misleads has nothing to do "
    "with how similar it is; a benchmark may be kinder to similarity. "
    "Old types share few experiences with new ones, so there is little to forget by construction. That a language "
    "model follows what it is shown, and what it writes itself, is not shown. In development, utility alone in the "
    "second phase gained more than half as much (gain_of_utility_alone). Similarity is weighed by the published "
    "statistics, which are of another embedding.",
)
def _memrl(seed: int) -> dict[str, float]:
    """Success over 2800 tasks, half of them of types that come later; chances on old types are exact."""
    world, memory = _World.of(seed), EpisodicMemory(seed=seed)
    ours = _run(world, memory)
    similar = _run(world, memory.replace(utility_weight=0.0))
    random = _run(world, memory.replace(epsilon=1.0))
    alone = _run(world, memory.replace(ranking="utility"))
    return {
        "success_gain": ours.success - similar.success,
        "gain_over_random": ours.success - random.success,
        "misleading_over_similarity": ours.misled / similar.misled,
        "forgotten": ours.before - ours.after,
        "gain_of_utility_alone": alone.success - similar.success,
        "success": ours.success,
        "success_of_similarity": similar.success,
        "success_of_random": random.success,
        "misleading": ours.misled,
        "old_types_after_new": ours.after,
    }
