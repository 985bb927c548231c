"""Generations of populations: each new one is taught by the best member of the last, and then learns on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from torch import Generator

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.openended.distillation import Distillation
from stratagem.openended.percentiles import ScoreBook, participation
from stratagem.openended.policy import GoalPolicy
from stratagem.openended.population import Population, PopulationTraining, ScoredWorld
from stratagem.openended.task import OpenEndedTask
from stratagem.openended.world import OpenEndedWorld
from stratagem.recipe import Recipe
from stratagem.seeding import derive, generator
from stratagem.tasks import registry
from stratagem.training.run_directory import RunDirectory, environment, file_name

TESTED_FROM = 100_000
"""Number of the first held-out task of the final test; validation uses the first ones of all."""

Progress = Callable[[int, Mapping[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Evolved:
    """What became of each generation's best member.

    book: what they earned on the tasks of the test, by ``generation-N``; ``random`` is a policy that acts at random.
    steps: in environments, by generation, with those of distillation and of trials.
    divergence: of a student from its teacher when it began to learn by itself, mean over members; nan for the first.
    history: a row of figures for every round, as ``metrics.jsonl`` has them.  policy: the last generation's best.
    directory: of the run.
    """

    book: ScoreBook
    steps: tuple[int, ...]
    divergence: tuple[float, ...]
    history: tuple[dict[str, Any], ...]
    policy: GoalPolicy
    directory: Path

    def rows(self) -> list[dict[str, Any]]:
        """Curve and participation of each, as ``results.json`` has them."""
        return [self._row(agent) for agent in self.book.raw]

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

    recipe: any that a goal policy can learn by, such as ``xland``.  task: such as ``openended:grid``.
    rounds: of each generation, of ``training.interval`` batches for every member.  tests: held-out tasks of the final
    test.  values: of the recipe's fields.  progress: called with generation and figures after every round.
    out: a directory for ``run.json``, ``environment.json``, ``metrics.jsonl``, ``results.json``, ``report.html``, the
    best policy as ``policy/``, and a folder for every generation and member.

    Raises :class:`InputError` for wrong input, :class:`BrokenRunError` when it is interrupted after a generation,
    naming the directory, which then holds the generations that are done.
    """
    for name, count in (("generations", generations), ("rounds", rounds), ("tests", tests)):
        if count < 1:
            raise InputError(f"{name} = {count}: must be at least 1")
    universe = registry.make(task)
    if not isinstance(universe, OpenEndedTask):
        raise InputError(f"task {task}: is no universe of tasks; openended:grid is")
    training, distillation = training or PopulationTraining(), distillation or Distillation()
    made = recipe if isinstance(recipe, Recipe) else catalogue.recipe(recipe)
    path = Path(out or Path("runs") / run_name(made.name, task, seed))
    if (path / "run.json").exists():
        raise InputError(f"run directory {path}: holds a run already; name another with --out")
    run = RunDirectory.create(path)
    asked = {"command": "evolve", "recipe": made.name, "task": task, "generations": generations, "rounds": rounds}
    asked |= {"tests": tests, "seed": seed, "values": dict(values or {}), "training": vars(training)}
    run.write_json("run.json", asked)
    run.write_json("environment.json", environment(seed))
    generation = _Generations(made, universe, run, training, distillation, range(TESTED_FROM, TESTED_FROM + tests))
    try:
        for number in range(1, generations + 1):
            generation.advance(number, rounds, derive(seed, "generation", number), values, progress)
            if number == 1:
                generation.enter_random(generator(seed, "random"))
    except InputError:
        run.withdraw()
        raise
    except KeyboardInterrupt:
        if not generation.steps:
            raise
        _written(generation.found(), asked)
        done = f"{len(generation.steps)} of {generations} generations, which are in {path}"
        raise BrokenRunError(f"stopped after {done}") from None
    return _written(generation.found(), asked)


def run_name(recipe: str, task: str, seed: int) -> str:
    """Of the directory a run is written to unless another is named."""
    return file_name(f"evolve-{recipe}-{task}-seed{seed}")


class _Generations:
    """The generations that were, and what the next one needs of them."""

    def __init__(
        self,
        recipe: Recipe,
        universe: OpenEndedTask,
        run: RunDirectory,
        training: PopulationTraining,
        distillation: Distillation,
        tested: range,
    ) -> None:
        self.recipe, self.universe, self.run = recipe, universe, run
        self.training, self.distillation, self.tested = training, distillation, tested
        self.book, self.steps, self.divergence = ScoreBook(len(tested)), list[int](), list[float]()
        self.history: list[dict[str, Any]] = []
        self.best: OpenEndedWorld | None = None

    def advance(
        self, number: int, rounds: int, seed: int, values: Mapping[str, Any] | None, progress: Progress
    ) -> None:
        """Teach a new population, let it learn for so many rounds, and test its best member."""
        folder, teacher = (
            self.run.path / f"generation-{number}",
            None if self.best is None else self.best.policy.frozen(),
        )
        population = Population(self.training, self.recipe, self._world, folder, seed, values)
        taught = [
            _taught(member.world, teacher, self.distillation, derive(seed, "distil")) for member in population.members
        ]

        def show(_: int, row: Mapping[str, Any]) -> None:
            self.history.append({"generation": number, **row})
            self.run.append("metrics.jsonl", self.history[-1])
            progress(number, row)

        population.advance(rounds, show)
        best = population.members[population.best(population.scores())].world
        assert isinstance(best, OpenEndedWorld), "made by _world"
        self.best = best
        self.book.enter(f"generation-{number}", best.held_out(self.tested))
        self.divergence.append(float(np.mean([one for one, _ in taught])))
        self.steps.append(population.steps + sum(spent for _, spent in taught))

    def enter_random(self, source: Generator) -> None:
        """Test a policy that acts at random, for comparison."""
        assert self.best is not None, "there was a generation"
        self.book.enter("random", self.best.scores("test", self.tested, 1, source, None).mean(1).numpy())

    def found(self) -> Evolved:
        """What became of them."""
        assert self.best is not None, "there was a generation"
        policy, path = self.best.policy.frozen(), self.run.path
        return Evolved(self.book, tuple(self.steps), tuple(self.divergence), tuple(self.history), policy, path)

    def _world(self, member: int) -> ScoredWorld:
        return OpenEndedWorld(self.universe, member)


def _written(found: Evolved, asked: Mapping[str, Any]) -> Evolved:
    """What was found, written down."""
    from stratagem.study.evolution_report import write_evolution_report

    run, name, task = RunDirectory(found.directory), asked["recipe"], asked["task"]
    results = {"steps": list(found.steps), "results": found.rows()}
    run.write_text("results.json", json.dumps(results, indent=2) + "\n")
    found.policy.save(run.path / "policy", f"# {name}\n\nThe best of {len(found.steps)} generations on `{task}`.\n")
    write_evolution_report(found, run.path / "report.html", recipe=name, task=task, seed=asked["seed"])
    return found


def _taught(world: ScoredWorld, teacher: GoalPolicy | None, distillation: Distillation, seed: int) -> tuple[float, int]:
    """Divergence from the teacher and steps; nan and none where there is no teacher."""
    assert isinstance(world, OpenEndedWorld), "made above"
    if teacher is None:
        return float("nan"), 0
    return distillation(world.policy, teacher, world.task, seed)
