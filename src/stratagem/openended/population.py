"""Population-based training: members that learn side by side, and copy from those that dominate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from numpy import ndarray

from stratagem.openended.coplayers import Player
from stratagem.openended.metagames import MetagameBook, check_profiles
from stratagem.openended.percentiles import SELECTED, ScoreBook, dominates, percentiles, undominated
from stratagem.openended.policy import GoalPolicy
from stratagem.recipe import Recipe
from stratagem.seeding import derive, numpy_generator
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory
from stratagem.training.world import World
from stratagem.validation import validate_fields

THRESHOLDS = tuple(
    f"sampler.curriculum.{name}" for name in ("easy", "easy_share", "margin_share", "trivial", "trivial_share")
)
"""Of :class:`~stratagem.sampling.ProbedTasks`."""

KNOBS = ("optimization.learning_rate", *THRESHOLDS)
"""What is perturbed: those of them that a recipe has."""

Book: TypeAlias = ScoreBook | MetagameBook
"""What agents earned, alone or with each other."""

CAPPED = 1.0
"""Thresholds and shares go no higher."""


class ScoredWorld(World, Protocol):
    """A world that can say what its policy earns on each of some held-out tasks, and lets it meet others."""

    @property
    def policy(self) -> GoalPolicy:
        """What acts and learns."""
        ...

    @property
    def players(self) -> int:
        """In each task."""
        ...

    def meet(self, name: str, policy: GoalPolicy) -> None:
        """This policy, as it is now, is one of those that play along; with one player nobody does."""
        ...

    def matched(self, numbers: Sequence[int], agents: Mapping[str, Player]) -> MetagameBook:
        """What every profile of these agents earns on held-out tasks of several players."""
        ...

    def held_out(self, numbers: Sequence[int], episodes: int = 1) -> Float64[ndarray, " tasks"]:
        """Mean score on each, at least 0."""
        ...


@dataclass
class Member:
    """One that learns. steps: it took in its world, trials included.  copied: from which members, in order."""

    trainer: Trainer
    world: ScoredWorld
    steps: int = 0
    copied: list[int] = field(default_factory=list)

    @property
    def recipe(self) -> Recipe:
        """With the knobs as they are by now."""
        return self.trainer.recipe

    def knobs(self, names: Sequence[str] = KNOBS) -> dict[str, float]:
        """Those that its recipe has."""
        flat = self.recipe.flat()
        return {name: float(flat[name]) for name in names if name in flat}


@dataclass(frozen=True)
class PopulationTraining:
    """Members learn ``interval`` batches each; then every member is compared with one other, at random.

    They are compared by the percentiles ``selected`` of normalised scores on ``validation`` held-out tasks, the best of
    all members counting 1; with several players the members play each other in all seats, and the equilibrium of their
    metagame counts 1 (:class:`MetagameBook`); after every round all have met each other as they are. A member that is
    dominated becomes a copy of the other, with its weights, the state of its optimizer, what its parts remember and
    whom its world has met, and then every knob is multiplied by ``down`` or ``up``, each as likely.
    Thresholds and shares stay at or below 1.

    Source: arXiv 2107.12808, population-based training; factors and percentiles as described there. Raises
    :class:`InputError` for a value out of range.
    """

    members: Annotated[int, Ge(1), Le(64)] = 4
    interval: Annotated[int, Ge(1)] = 5
    validation: Annotated[int, Ge(1)] = 100
    selected: tuple[Annotated[int, Ge(0), Le(100)], ...] = SELECTED
    down: Annotated[float, Gt(0)] = 0.8
    up: Annotated[float, Gt(0)] = 1.25
    knobs: tuple[str, ...] = KNOBS

    def __post_init__(self) -> None:
        validate_fields(self, "population")


class Population:
    """Members of one generation.

    world: makes a member's world from a seed of its own.  path: folder in which every member has its run directory.
    values: of the recipe's fields, after the world has adapted it.

    Raises :class:`InputError` where there are too many members to play each other in all seats.
    """

    def __init__(
        self,
        training: PopulationTraining,
        recipe: Recipe,
        world: Callable[[int], ScoredWorld],
        path: str | Path,
        seed: int,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.training, self.seed, self.round = training, seed, 0
        self.members: list[Member] = []
        for number in range(training.members):
            own = derive(seed, "member", number)
            made = world(own)
            check_profiles(training.members, made.players)
            # The population decides when to stop; 10**9 batches is never.
            settings = Settings(steps=10**9, seed=own, evaluation_episodes=0, keep_checkpoints=1)
            run = RunDirectory.create(Path(path) / f"member-{number}")
            adapted = made.adapt(recipe).with_values(values or {})
            self.members.append(Member(Trainer(adapted, made, run, settings), made))

    def advance(self, rounds: int, progress: Callable[[int, dict[str, Any]], None] = lambda number, row: None) -> None:
        """So many rounds of learning and comparing. progress: called with a row of figures after each."""
        for _ in range(rounds):
            for member in self.members:
                for _ in range(self.training.interval):
                    member.steps += int(member.trainer.step()["tokens/sampled"])
            self._introduce()
            book = self.scores()
            copies = self.compare(book)
            self.round += 1
            progress(self.round, self._row(book, copies))

    def _introduce(self) -> None:
        """Let all members meet each other; who copies then copies whom its model has met."""
        for number, member in enumerate(self.members):
            for other, met in enumerate(self.members):
                if other != number:
                    member.world.meet(f"member-{other} round-{self.round + 1}", met.world.policy)

    @property
    def steps(self) -> int:
        """Environment steps of all members, trials included."""
        return sum(member.steps for member in self.members)

    def scores(self, numbers: Sequence[int] | None = None) -> Book:
        """What every member earns on these held-out tasks; by default those for validation."""
        numbers = range(self.training.validation) if numbers is None else numbers
        if self.members[0].world.players > 1:
            policies = {str(number): member.world.policy for number, member in enumerate(self.members)}
            return self.members[0].world.matched(numbers, policies)
        book = ScoreBook(len(numbers))
        for number, member in enumerate(self.members):
            book.enter(str(number), member.world.held_out(numbers))
        return book

    def best(self, book: Book) -> int:
        """Number of a member that none dominates; of several the one with the highest selected percentiles in sum."""
        curves = self._curves(book)
        return max(undominated(curves), key=lambda number: float(curves[number].sum()))

    def compare(self, book: Book) -> list[tuple[int, int]]:
        """Let every member copy from one other that dominates it; returns who copied from whom."""
        if len(self.members) < 2 or not book.kept.any():
            return []
        curves, draw = self._curves(book), numpy_generator(self.seed, "compare", self.round)
        others = draw.integers(len(self.members) - 1, size=len(self.members))
        pairs = [(one, int(other + (other >= one))) for one, other in enumerate(others)]
        copies = [(one, other) for one, other in pairs if dominates(curves[other], curves[one])]
        saved = {}
        for other in {other for _, other in copies}:
            trainer = self.members[other].trainer
            trainer.checkpoint()
            saved[other] = trainer.run_directory.load()
        for one, other in copies:
            self.members[one].trainer.resume(saved[other])
            self.members[one].copied.append(other)
            self._perturb(one, draw)
        return copies

    def _perturb(self, number: int, draw: np.random.Generator) -> None:
        member, training = self.members[number], self.training
        changed = {}
        for name, value in member.knobs(training.knobs).items():
            value *= training.up if draw.random() < 0.5 else training.down
            changed[name] = min(value, CAPPED) if name in THRESHOLDS else value
        member.trainer.recipe = member.recipe.with_values(changed)

    def _curves(self, book: Book) -> list[Float64[ndarray, " selected"]]:
        return [
            percentiles(book.normalized(str(number)), self.training.selected) for number in range(len(self.members))
        ]

    def _row(self, book: Book, copies: Sequence[tuple[int, int]]) -> dict[str, Any]:
        row: dict[str, Any] = {"round": self.round, "steps": self.steps, "copies": [list(pair) for pair in copies]}
        if book.kept.any():
            row["best"] = self.best(book)
            row["percentiles"] = [curve.tolist() for curve in self._curves(book)]
        row["score"] = [float(book.earned(agent).mean()) for agent in book.agents]
        row["knobs"] = [member.knobs(self.training.knobs) for member in self.members]
        return row
