"""Start, resume and judge runs, and judge a model before one: the calls behind the command line."""

from __future__ import annotations

import dataclasses
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol

from stratagem import catalogue
from stratagem.cluster.plan import Cluster
from stratagem.errors import BrokenRunError, InputError
from stratagem.experience import Experience
from stratagem.language.engines import TINY, Precision
from stratagem.language.world import LanguageWorld
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts, minimal_prefixes
from stratagem.sampling.guided import Search
from stratagem.saved import SavedRun
from stratagem.study.alignment import Alignment, pass_at_k
from stratagem.study.report import write_report
from stratagem.tasks import registry
from stratagem.tasks.guided import Guidance, TrialTask
from stratagem.tasks.task import AnyTask, Task
from stratagem.training.loop import Interrupted, Settings, Trainer
from stratagem.training.run_directory import RunDirectory, environment, file_name
from stratagem.training.world import Evaluation, World
from stratagem.worlds import Request, build_world

Progress = Callable[[int, Mapping[str, float]], None]

UNSEEN = 100_000
"""Number of the first held-out episode that no run looks at while it trains."""

DEFAULT_STEPS = {"text": 40, "control": 60, "lab": 100, "diffusion": 100, "hybrid": 60, "multiagent": 100}
"""Batches a run learns from when nobody says how many, by family of task."""

ANY_STEPS = 10**9
"""Batches of a run that only its budget of tokens ends."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it is, its last training metrics, and held-out evaluations in the order they were made."""

    directory: Path
    metrics: dict[str, float]
    evaluations: list[dict[str, Any]]

    def first_and_last(self, mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The evaluations before and after training in this mode (``sampled`` or ``greedy``)."""
        rows = [row for row in self.evaluations if row["mode"] == mode]
        if not rows:
            raise InputError(f"run {self.directory} has no {mode} evaluation")
        return rows[0], rows[-1]


def train(
    recipe: str | Path | Recipe,
    task: str | AnyTask,
    *,
    model: str | Mapping[str, str] | None = None,
    engine: str = "hf",
    precision: Precision = "auto",
    lora: int | None = None,
    values: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    steps: int | None = None,
    budget: int | None = None,
    seed: int = 0,
    evaluate_every: int = 0,
    evaluate_tokens: int | None = None,
    evaluation_episodes: int = 100,
    checkpoint_every: int = 10,
    concurrency: int = 256,
    timeout: float = 30.0,
    device: str = "auto",
    gradient_checkpointing: bool = False,
    cluster: Cluster | None = None,
    wandb: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Train with a recipe on a task and return what came of it.

    recipe: catalogue name, YAML file, or a :class:`Recipe`. A recipe of the catalogue is adapted to the kind of task
    first; a file or a ``Recipe`` is taken as written.  task: specification, or a task.  model: as in :class:`Request`.
    values: fields to change, by dotted path.  out: run directory, by default ``runs/RECIPE-TASK-seedS``.
    Everything else as in :class:`Request` and :class:`Settings`. Raises :class:`InputError` for wrong input,
    :class:`BrokenRunError` when the run broke.
    """
    name = recipe.name if isinstance(recipe, Recipe) else str(recipe)
    given = recipe if isinstance(recipe, Recipe) else find_recipe(name)
    made, spec = (registry.make(task), task) if isinstance(task, str) else (task, task.name)
    if cluster is not None and made.family != "text":
        raise InputError(f"task {spec}: runs in one process; only tasks played in text run on a cluster")
    if model is None and made.family == "text":
        model = TINY
    models = dict(model) if isinstance(model, Mapping) else model
    request = Request(
        name, spec, models, engine, precision, lora, concurrency, timeout, device, gradient_checkpointing, cluster
    )
    world = None if cluster is not None else build_world(request, made, seed)
    # On a cluster only text tasks run, and recipes are written for those.
    if world is not None and not isinstance(recipe, Recipe) and not _is_file(name):
        given = world.adapt(given)
    final = given.with_values(values or {})
    if steps is None:
        steps = DEFAULT_STEPS[made.family] if budget is None else ANY_STEPS
    settings = Settings(
        steps=steps,
        seed=seed,
        budget=budget,
        evaluate_every=evaluate_every,
        evaluate_tokens=evaluate_tokens,
        evaluation_episodes=evaluation_episodes,
        checkpoint_every=checkpoint_every,
        journal=cluster is not None,
    )
    run = RunDirectory.create(out if out is not None else _default_directory(final.name, spec, seed))
    saved = SavedRun(run, request, settings, wandb, isinstance(task, str))
    sinks = saved.sinks(None) if world is not None else ()
    run.write_text("recipe.yaml", final.to_yaml())
    run.write_json("environment.json", environment(seed))
    saved.write()
    try:
        if world is None:
            return _supervised(saved, made, progress)
        with run.held():
            return _finish(Trainer(final, world, run, settings, sinks, progress), run, world)
    except InputError:
        run.withdraw()
        raise


def resume(
    directory: str | Path,
    *,
    task: AnyTask | None = None,
    steps: int | None = None,
    cluster: Cluster | Literal["as before"] | None = "as before",
    progress: Progress | None = None,
) -> RunResult:
    """Continue a run from its newest complete checkpoint, with the same numbers as an unbroken run.

    A run that died before its first checkpoint was due starts over.
    task: the task of a run that was started with one instead of a specification.
    steps: a new total, if the run is to go on for longer.
    cluster: where to go on, if not where it ran before; None: in this process.
    Raises :class:`InputError` when there is nothing to resume.
    """
    saved = SavedRun.read(RunDirectory.existing(directory))
    run, made, checkpoint = saved.directory, saved.task(task), saved.checkpoint()
    done = 0 if checkpoint is None else checkpoint.state["step"]
    if steps is not None:
        if steps < done:
            raise InputError(f"steps = {steps}: run {run.path} has done {done} already")
        saved = dataclasses.replace(saved, settings=dataclasses.replace(saved.settings, steps=steps))
    if cluster != "as before":
        saved = dataclasses.replace(saved, request=dataclasses.replace(saved.request, cluster=cluster))
    if saved.request.cluster is not None:
        saved.write()
        return _supervised(saved, made, progress)
    with run.held():
        world = build_world(saved.request, made, saved.settings.seed)
        trainer = Trainer(saved.recipe, world, run, saved.settings, saved.sinks(saved.reached), progress)
        trainer.resume(saved.checkpoint())
        saved.write()
        return _finish(trainer, run, world)


def evaluate(
    source: str | Path,
    task: str | None = None,
    *,
    episodes: int = 200,
    seed: int = 0,
    precision: Precision = "auto",
    concurrency: int = 256,
    timeout: float = 30.0,
    device: str = "auto",
) -> list[Evaluation]:
    """Sampled and greedy evaluation of a run's best policy, or of a model, on held-out episodes of a task.

    They are other episodes than those a run looks at to choose its best policy, unless the task has too few.

    source: run directory, model folder, hub name or ``tiny``.  task: by default the run's own.
    """
    model, task = _model_and_task(source, task)
    request = Request("", task, model, precision=precision, concurrency=concurrency, timeout=timeout, device=device)
    world = build_world(request, registry.make(task), seed)
    try:
        world.serve(0)
        return [world.evaluate(episodes, "sampled", UNSEEN), world.evaluate(episodes, "greedy", UNSEEN)]
    finally:
        world.close()


def pass_at(
    source: str | Path,
    ks: Sequence[int],
    task: str | None = None,
    *,
    prompts: int = 100,
    samples: int | None = None,
    seed: int = 0,
    precision: Precision = "auto",
    concurrency: int = 256,
    timeout: float = 30.0,
    device: str = "auto",
) -> dict[int, float]:
    """pass@k of a run's best policy, or of a model: the chance that one of ``k`` sampled answers is right.

    For every ``k`` the mean over held-out start states of ``1 - C(n - c, k) / C(n, k)``, where ``c`` of ``n`` episodes
    succeeded (arXiv 2107.03374), at temperature 1. Start states that lost episodes to failures, so that fewer than the
    largest ``k`` are left, do not count; NaN when none is left.

    source, task: as in :func:`evaluate`.  ks: each at least 1.  prompts: start states, other ones than a run looks at
    to choose its best policy.  samples: episodes from each, at least the largest ``k``; None: twice that many.

    Raises :class:`InputError` for numbers out of range, and for a task whose policy writes no text.
    """
    if not ks or min(ks) < 1:
        raise InputError(f"pass@k with k = {list(ks)}: must be one or more numbers from 1 on")
    samples = 2 * max(ks) if samples is None else samples
    if samples < max(ks):
        raise InputError(f"samples = {samples}: must be at least {max(ks)}, the largest k of pass@k")
    if prompts < 1:
        raise InputError(f"prompts = {prompts}: must be at least 1")
    model, task = _model_and_task(source, task)
    request = Request("", task, model, precision=precision, concurrency=concurrency, timeout=timeout, device=device)
    world = build_world(request, registry.make(task), seed)
    try:
        if not isinstance(world, LanguageWorld):
            raise InputError(f"pass@k on task {task}: is measured where a language policy writes text")
        world.serve(0)
        counted = [found for found in world.tries(prompts, samples, UNSEEN) if found[0] >= max(ks)]
    finally:
        world.close()
    return {
        k: sum(pass_at_k(n, c, k) for n, c in counted) / len(counted) if counted else math.nan for k in sorted(set(ks))
    }


def _model_and_task(source: str | Path, task: str | None) -> tuple[str, str]:
    """Where the policy to look at lies, and the task: of a run, its best policy and by default its own task."""
    path = Path(source)
    if (path / "run.json").is_file():
        task = task or str(RunDirectory(path).read_json("run.json")["task"])
        source = path / "model"
        if not source.is_dir():
            raise InputError(f"run {path}: has no model yet; it is saved with the first evaluation")
    if task is None:
        raise InputError(f"eval {source}: name a task with --task; only a run knows its own")
    return str(source), task


def align(
    task: str,
    model: str | None = None,
    *,
    prompts: int = 32,
    samples: int = 64,
    ks: Sequence[int] = (),
    seed: int = 0,
    aligned_from: float = Alignment.aligned_from,
    contaminated_from: float = Alignment.contaminated_from,
    precision: Precision = "auto",
    concurrency: int = 256,
    timeout: float = 30.0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Alignment:
    """What a model can do in a task before it is trained there: ``samples`` episodes from each of ``prompts`` prompts.

    They are the start states a run begins with, sampled at temperature 1. Failed episodes are counted and played again;
    a prompt that lost all is replaced, one that lost some is left out. Contamination is measured where the policy reads
    text.

    task: specification.  model: folder, hub name, or None for the one a run would start with.
    ks: refused here if the samples are too few for them, before anything is played.

    Raises :class:`InputError` for wrong input and for a task without success, :class:`BrokenRunError` when every prompt
    lost episodes.
    """
    for k in ks:
        if not 1 <= k <= samples:
            raise InputError(f"pass@k with k = {k}: must be from 1 to the number of samples, {samples}")
    made = registry.make(task)
    if model is None and made.family == "text":
        model = TINY
    request = Request("", task, model, precision=precision, concurrency=concurrency, timeout=timeout, device=device)
    world = build_world(request, made, seed)
    counted: list[tuple[int, int, int]] = []
    failed = 0
    try:
        world.serve(0)
        at_once = max(1, concurrency // samples)
        for step, start in enumerate(range(0, prompts, at_once)):
            sampler = Rollouts(prompts_per_step=min(at_once, prompts - start), group_size=samples)
            collected = world.collect(sampler, step)
            counted += _counts(collected.x, task)
            failed += int(collected.metrics.get("episodes/failed", 0))
            if progress is not None:
                progress(step + 1, collected.metrics)
        whole = [row for row in counted if row[1] == samples]
        if not whole:
            raise BrokenRunError(f"align: every prompt of {task} lost episodes; stratagem train writes what happened")
        numbers, sampled, correct = zip(*whole, strict=True)
        contamination = world.recalled(numbers) if isinstance(world, LanguageWorld) else None
    finally:
        world.close()
    return Alignment(
        sampled,
        correct,
        numbers,
        contamination,
        failed=failed,
        aligned_from=aligned_from,
        contaminated_from=contaminated_from,
    )


def guide(
    task: str,
    model: str | None = None,
    *,
    problems: int = 64,
    samples: int = 128,
    tries: int = 16,
    share: float = 0.25,
    increment: float = 0.05,
    search: Search = "scan",
    seed: int = 0,
    precision: Precision = "auto",
    concurrency: int = 256,
    timeout: float = 30.0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Guidance:
    """How far each of the first ``problems`` of a task has to be led along its solution for a model to solve it at all.

    A problem that has no success among ``samples`` episodes is hard. It is led as little as lets one of ``tries``
    succeed: lengths are multiples of ``increment`` of its solution up to ``share``, in whole steps, and none that gives
    the answer away. Where none suffices it is the longest. A failed episode is no success.

    task: specification of a task played in text.  model: as for :func:`align`.  search: see
    :func:`~stratagem.sampling.guided.minimal_prefixes`.

    Raises :class:`InputError` for wrong input.
    """
    for name, value in (("problems", problems), ("samples", samples), ("tries", tries)):
        if value < 1:
            raise InputError(f"guide: {name} = {value}: must be at least 1")
    made = registry.make(task)
    if not isinstance(made, Task):
        raise InputError(f"task {task}: is not played in text, so nothing of a solution can be shown")
    trial = TrialTask(made, share=share)
    model = TINY if model is None else model
    request = Request("", task, model, precision=precision, concurrency=concurrency, timeout=timeout, device=device)
    world, steps = build_world(request, trial, seed), count()
    lengths = {problem: trial.lengths(problem, increment) for problem in range(problems)}

    def solves(asked: Sequence[tuple[int, int]]) -> list[bool]:
        """Whether there is a success: of ``samples`` without guidance, of ``tries`` with it."""
        solved: dict[tuple[int, int], bool] = {}
        for size, guided in ((samples, False), (tries, True)):
            chosen = [one for one in asked if bool(one[1]) == guided]
            at_once = max(1, concurrency // size)
            for first in range(0, len(chosen), at_once):
                trial.trials = tuple(chosen[first : first + at_once])
                numbers = range(len(trial.trials))
                sampler = Rollouts(len(numbers), size, start_states=tuple(numbers), refill_rounds=0)
                collected = world.collect(sampler, next(steps))
                successes = {place: wins for place, _, wins in _counts(collected.x, task)}
                solved |= {one: successes.get(place, 0) > 0 for place, one in enumerate(trial.trials)}
                if progress is not None:
                    progress(len(solved), collected.metrics)
        return [solved[one] for one in asked]

    try:
        world.serve(0)
        return Guidance(task, minimal_prefixes(solves, lengths, search))
    finally:
        world.close()


def _counts(x: Experience | None, task: str) -> list[tuple[int, int, int]]:
    """Start state, episodes and successes of every group."""
    if x is None:
        return []
    if x.success is None or x.task_id is None:
        raise InputError(f"task {task} knows no success, so there is nothing to count")
    groups = x.group_of_trajectory
    return list(zip(x.task_id.tolist(), groups.size().tolist(), groups.sum(x.success.long()).tolist(), strict=True))


def find_recipe(name: str) -> Recipe:
    """The recipe in a YAML file, or of the catalogue."""
    return Recipe.load(name) if _is_file(name) else catalogue.card(name).recipe()


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _default_directory(recipe: str, task: str, seed: int) -> Path:
    return Path("runs") / f"{recipe}-{file_name(task)}-seed{seed}"


def _finish(trainer: Trainer, run: RunDirectory, world: World) -> RunResult:
    """Run to the end in this process."""
    try:
        with _finishing(run), _stopping_on_signals(trainer):
            metrics = trainer.run()
    finally:
        trainer.close()
        world.close()
    return _reported(run, metrics)


def _supervised(saved: SavedRun, task: AnyTask, progress: Progress | None) -> RunResult:
    """Run to the end on a cluster."""
    from stratagem.cluster.supervisor import Supervisor

    supervisor = Supervisor(saved, task, progress)
    with _finishing(saved.directory), _stopping_on_signals(supervisor):
        metrics = supervisor.run()
    return _reported(saved.directory, metrics)


@contextmanager
def _finishing(run: RunDirectory) -> Iterator[None]:
    """Whatever breaks names the directory that holds what was saved."""
    try:
        yield
    except Interrupted:
        raise BrokenRunError(f"stopped and saved; continue with: stratagem train --resume {run.path}") from None
    except InputError:
        raise
    except BrokenRunError as error:
        if str(run.path) in str(error):
            raise
        raise BrokenRunError(f"{error}; what was saved is in {run.path}") from error
    except Exception as error:
        raise BrokenRunError(f"{type(error).__name__}: {error}; what was saved is in {run.path}") from error


def _reported(run: RunDirectory, metrics: dict[str, float]) -> RunResult:
    write_report([run], run.path / "report.html", "Training run")
    return RunResult(run.path, metrics, run.rows("evaluations.jsonl"))


class _Stoppable(Protocol):
    def stop(self) -> None: ...


@contextmanager
def _stopping_on_signals(running: _Stoppable) -> Iterator[None]:
    """The first interrupt or termination saves and stops; a second interrupt is not caught."""

    def stop(number: int, _: Any) -> None:
        signal.signal(number, previous[number])
        print("stopping after this optimizer step ...", file=sys.stderr)
        running.stop()

    previous: dict[int, Any] = {}
    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous[caught] = signal.signal(caught, stop)
    except ValueError:  # Only the main thread may handle signals; elsewhere the caller has its own way to stop.
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
