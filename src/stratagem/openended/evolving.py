"""Generations of populations: each new one is taught by the best member of the last, and then learns on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.openended.coplayers import RANDOM, RandomPlayer
from stratagem.openended.distillation import Distillation
from stratagem.openended.metagames import MetagameBook, check_profiles
from stratagem.openended.percentiles import ScoreBook, participation
from stratagem.openended.policy import GoalPolicy
from stratagem.openended.population import Book, Population, PopulationTraining, ScoredWorld
from stratagem.openended.world import OpenEndedWorld
from stratagem.recipe import Recipe
from stratagem.seeding import derive, generator
from stratagem.tasks import registry
from stratagem.tasks.task import AnyTask
from stratagem.training.run_directory import RunDirectory, environment, file_name

TESTED_FROM = 100_000
"""Number of the first held-out task of the final test; validation uses the first ones of all."""

Progress = Callable[[int, Mapping[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Evolved:
    """What became of each generation's best member.

    book: what they earned on the tasks of the test, by ``generation-N``; ``random`` is a policy that acts at random.
    With several players all of them have played each other in all seats.
    steps: in environments, by generation, with those of distillation and of trials.
    divergence: of a student from its teacher when it began to learn by itself, mean over members; nan for the first.
    policy: the last generation's best.  directory: of the run.
    """

    book: Book
    steps: tuple[int, ...]
    divergence: tuple[float, ...]
    policy: GoalPolicy
    directory: Path

    def rows(self) -> list[dict[str, Any]]:
        """Curve and participation of each, as ``results.json`` has them."""
        return [self._row(agent) for agent in self.book.agents]

    def _row(self, agent: str) -> dict[str, Any]:
        scores: Float64[ndarray, " tasks"] = self.book.normalized(agent)
        curve = self.book.curve(agent).tolist()
        return {"agent": agent, "participation": participation(scores), "mean": float(scores.mean()), "curve": curve}


def evolve(
    recipe: str | Recipe,
    task: str,
    *,
    generations: int = 2,
    rounds: int = 4,
    training: PopulationTraining | None = None,
    distillation: Distillation | None = None,
    tests: int = 200,
    seed: int = 0,
    values: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress = lambda generation, row: None,
) -> Evolved:
    """Train generations of populations on a universe of tasks.

    With several players, members meet snapshots of each other, and the best of all earlier generations stay among
    those they meet, as do the policies of ``coplayers``.

    recipe: any that a goal policy can learn by, such as ``xland``.  task: such as ``openended:grid``.
    rounds: of each generation, of ``training.interval`` batches for every member.  tests: held-out tasks of the final
    test.  values: of the recipe's fields.  progress: called with generation and figures after every round.
    out: a directory for ``run.json``, ``environment.json``, ``metrics.jsonl``, ``results.json``, the best policy as
    ``policy/``, and a folder for every generation and member.

    Raises :class:`InputError` for wrong input.
    """
    for name, count in (("generations", generations), ("rounds", rounds), ("tests", tests)):
        if count < 1:
            raise InputError(f"{name} = {count}: must be at least 1")
    universe = registry.make(task)
    if universe.family != "openended":
        raise InputError(f"task {task}: is no universe of tasks; openended:grid is")
    training, distillation = training or PopulationTraining(), distillation or Distillation()
    made = recipe if isinstance(recipe, Recipe) else catalogue.recipe(recipe)
    # What cannot be says so before anything is written.
    players = _world(universe, seed, {}).players
    check_profiles(max(generations + 1, training.members), players)
    run = RunDirectory.create(out or Path("runs") / file_name(f"evolve-{made.name}-{task}-seed{seed}"))
    asked = {"command": "evolve", "recipe": made.name, "task": task, "generations": generations, "rounds": rounds}
    run.write_json("run.json", {**asked, "seed": seed, "values": dict(values or {}), "training": vars(training)})
    run.write_json("environment.json", environment(seed))
    steps, divergence = list[int](), list[float]()
    tested = range(TESTED_FROM, TESTED_FROM + tests)
    teacher: GoalPolicy | None = None
    earlier = dict[str, GoalPolicy]()
    book: Book = ScoreBook(tests) if players == 1 else MetagameBook(tests, players)
    for generation in range(1, generations + 1):
        own = derive(seed, "generation", generation)
        folder = run.path / f"generation-{generation}"
        population = Population(training, made, partial(_world, universe, earlier=earlier), folder, own, values)
        taught = [_taught(member.world, teacher, distillation, derive(own, "distil")) for member in population.members]
        divergence.append(float(np.mean([one for one, _ in taught])))

        def show(number: int, row: Mapping[str, Any]) -> None:
            run.append("metrics.jsonl", {"generation": generation, **row})  # noqa: B023
            progress(generation, row)  # noqa: B023

        population.advance(rounds, show)
        best = population.members[population.best(population.scores())].world
        assert isinstance(best, OpenEndedWorld), "made above"
        teacher = earlier[f"generation-{generation}"] = best.policy.frozen()
        if isinstance(book, MetagameBook):
            book.play(best.task, "test", tested, {**earlier, RANDOM: RandomPlayer()}, derive(seed, "test"))
        else:
            book.enter(f"generation-{generation}", best.held_out(tested))
            if generation == 1:
                book.enter("random", best.scores("test", tested, 1, generator(seed, "random"), None).mean(1).numpy())
        steps.append(population.steps + sum(spent for _, spent in taught))
    assert teacher is not None, "there was a generation"
    found = Evolved(book, tuple(steps), tuple(divergence), teacher, run.path)
    run.write_text("results.json", json.dumps({"steps": steps, "results": found.rows()}, indent=2) + "\n")
    teacher.save(run.path / "policy", f"# {made.name}\n\nThe best of {generations} generations on `{task}`.\n")
    return found


def _world(universe: AnyTask, seed: int, earlier: Mapping[str, GoalPolicy]) -> OpenEndedWorld:
    """One whose learner may meet these."""
    made = OpenEndedWorld(universe, seed)  # type: ignore[arg-type]  # its family says so
    for name, policy in earlier.items():
        made.coplayers.keep(name, policy)
    return made


def _taught(world: ScoredWorld, teacher: GoalPolicy | None, distillation: Distillation, seed: int) -> tuple[float, int]:
    """Divergence from the teacher and steps; nan and none where there is no teacher."""
    assert isinstance(world, OpenEndedWorld), "made above"
    if teacher is None:
        return float("nan"), 0
    return distillation(world.policy, teacher, world.task, seed)
