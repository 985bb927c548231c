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

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.openended.coplayers import RANDOM, Player, RandomPlayer
from stratagem.openended.distillation import Distillation
from stratagem.openended.metagames import MetagameBook, check_profiles
from stratagem.openended.percentiles import ScoreBook, participation
from stratagem.openended.policy import GoalPolicy
from stratagem.openended.population import Book, Population, PopulationTraining, ScoredWorld
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
    With several players all of them have played each other in all seats.
    steps: in environments, by generation, with those of distillation and of trials.
    divergence: of a student from its teacher when it began to learn by itself, mean over members; nan for the first.
    history: a row of figures for every round, as ``metrics.jsonl`` has them.  policy: the last generation's best.
    directory: of the run.
    """

    book: Book
    steps: tuple[int, ...]
    divergence: tuple[float, ...]
    history: tuple[dict[str, Any], ...]
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
    # What cannot be says so before anything is written.
    check_profiles(max(generations + 1, training.members), OpenEndedWorld(universe, seed).players)
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
            generation.advance(number, rounds, seed, values, progress)
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
        tests, players = len(tested), universe.players
        self.book: Book = ScoreBook(tests) if players == 1 else MetagameBook(tests, players)
        self.steps, self.divergence, self.history = list[int](), list[float](), list[dict[str, Any]]()
        self.best = dict[str, GoalPolicy]()

    def advance(
        self, number: int, rounds: int, seed: int, values: Mapping[str, Any] | None, progress: Progress
    ) -> None:
        """Teach a new population, let it learn for so many rounds, and test its best member."""
        own, name = derive(seed, "generation", number), f"generation-{number}"
        population = Population(self.training, self.recipe, self._world, self.run.path / name, own, values)
        teacher, taught = self.best.get(f"generation-{number - 1}"), derive(own, "distil")
        lessons = [_taught(member.world, teacher, self.distillation, taught) for member in population.members]

        def show(_: int, row: Mapping[str, Any]) -> None:
            self.history.append({"generation": number, **row})
            self.run.append("metrics.jsonl", self.history[-1])
            progress(number, row)

        population.advance(rounds, show)
        best = population.members[population.best(population.scores())].world
        assert isinstance(best, OpenEndedWorld), "made by _world"
        self._test(name, best, seed)
        self.best[name] = best.policy.frozen()
        self.divergence.append(float(np.mean([one for one, _ in lessons])))
        self.steps.append(population.steps + sum(spent for _, spent in lessons))

    def _test(self, name: str, best: OpenEndedWorld, seed: int) -> None:
        """Enter what the best of a generation earns on the tasks of the test."""
        if isinstance(self.book, MetagameBook):
            # A book of its own, so that what is known stays whole where this is interrupted.
            book = self.book.copy()
            agents: dict[str, Player] = {**self.best, name: best.policy.frozen(), RANDOM: RandomPlayer()}
            book.play(best.task, "test", self.tested, agents, derive(seed, "test"))
            self.book = book
            return
        self.book.enter(name, best.held_out(self.tested))
        if not self.best:
            chance = generator(seed, "random")
            self.book.enter(RANDOM, best.scores("test", self.tested, 1, chance, None).mean(1).numpy())

    def found(self) -> Evolved:
        """What became of them."""
        policy = self.best[f"generation-{len(self.steps)}"]
        figures = (tuple(self.steps), tuple(self.divergence), tuple(self.history))
        return Evolved(self.book, *figures, policy, self.run.path)

    def _world(self, seed: int) -> ScoredWorld:
        """One whose learner may meet the best of earlier generations."""
        world = OpenEndedWorld(self.universe, seed)
        for name, policy in self.best.items():
            world.coplayers.keep(name, policy)
        return world


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
