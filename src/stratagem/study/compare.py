"""Compare recipes: the same model, tasks, seeds and tokens for each, and an analysis of what came of it."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.language.engines import Precision
from stratagem.recipe import Recipe
from stratagem.recorded import read_recorded
from stratagem.study.analysis import analyse
from stratagem.study.comparison import VERSION, Comparison, Plan, Trial, to_json, whole_seeds
from stratagem.study.comparison_report import write_comparison_report
from stratagem.study.trials import Place, Progress, folder_name, places_of, run_all
from stratagem.tasks import registry
from stratagem.tasks.task import Task
from stratagem.training.run_directory import RunDirectory, command_line, machine

DEFAULT_BUDGET = {
    "text": 40_000,
    "control": 60_000,
    "lab": 40_000,
    "diffusion": 40_000,
    "hybrid": 40_000,
    "multiagent": 200_000,
}
"""Tokens (actions) of a run when nobody says how many, by family of task."""


def compare(
    arms: Sequence[str | Path] | Mapping[str, str | Path | Recipe],
    task: str | Sequence[str],
    *,
    seeds: int | Sequence[int] = 5,
    budget: int | None = None,
    model: str | None = None,
    values: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    evaluations: int = 8,
    episodes: int = 100,
    threshold: float | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int = 1,
    pass_at: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train every arm on every task with every seed, and judge the arms against the first.

    All runs start from the same model, see the same start states under equal seeds, sample the same number of tokens
    and are evaluated on the same held-out episodes. Each is a run directory under ``out``; one that is finished is
    never run again, one that was cut short goes on where it was, so the same call continues a killed comparison and a
    call with more arms, tasks or seeds extends one.

    arms: catalogue names or YAML files, or these or recipes by label. The first is the reference.
    task: specification, or several.  seeds: how many (from 0), or which; at least two.
    budget: tokens each run may sample.  values: fields to change in every arm, by dotted path.
    out: folder, by default ``runs/compare-ARMS-TASKS``.
    evaluations, episodes, precision, device, threads, pass_at: as in :class:`~stratagem.study.comparison.Plan`.
    threshold: score to count tokens to, by default what the reference reaches.
    jobs: runs side by side, by default one for each processor core (one on an accelerator).
    progress: called with the number of finished runs, of all runs, and a line about the newest.

    Writes ``results.json`` and ``report.html`` to ``out``. Raises :class:`InputError` for wrong input, and
    :class:`BrokenRunError` when runs broke; what the others came to is written all the same.
    """
    labelled = _labelled(arms)
    tasks = (task,) if isinstance(task, str) else tuple(task)
    families = _checked(tasks)
    plan = Plan(
        arms={label: recipe.to_yaml() for label, (recipe, _) in labelled.items()},
        from_catalogue=tuple(label for label, (_, listed) in labelled.items() if listed),
        tasks=tasks,
        seeds=tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds),
        budget=min(DEFAULT_BUDGET[family] for family in families) if budget is None else budget,
        model=model,
        values=dict(values or {}),
        evaluations=evaluations,
        episodes=episodes,
        precision=precision,
        device=device,
        threads=threads,
        pass_at=pass_at,
    )
    if pass_at and set(families) != {"text"}:
        raise InputError(
            f"pass_at = {pass_at}: pass@k is measured where a policy writes text, not on {', '.join(tasks)}"
        )
    _refuse_the_impossible(plan, labelled)
    if threshold is not None and not (
        0 <= threshold <= 1 or ({"control", "multiagent"} & set(families) and math.isfinite(threshold))
    ):
        raise InputError(f"threshold = {threshold}: tasks judged by success have shares from 0 to 1")
    side_by_side = _jobs(jobs, device, threads)
    folder = Path(default_folder(plan) if out is None else out)
    _begin(folder, plan)
    trials, broken = run_all(folder, plan, side_by_side, progress)
    if broken and len(whole_seeds(plan, trials)) < 2:
        raise BrokenRunError(_story(broken, plan, folder))
    comparison = Comparison(
        plan=plan,
        trials=tuple(trials),
        analysis=analyse(plan, trials, threshold),
        command=shlex.join(command_line()),
        environment=machine(),
        recipes=_recipes_as_run(folder, plan, trials),
    )
    RunDirectory(folder).write_text("results.json", to_json(comparison))
    write_comparison_report(comparison, folder / "report.html")
    if broken:
        raise BrokenRunError(_story(broken, plan, folder))
    return comparison


# ---- the plan --------------------------------------------------------------------------------------------------------


def _labelled(arms: Sequence[str | Path] | Mapping[str, str | Path | Recipe]) -> dict[str, tuple[Recipe, bool]]:
    """Recipe of each arm by label, and whether it is the catalogue's own."""
    if isinstance(arms, Mapping):
        return {label: _recipe(arm) for label, arm in arms.items()}
    found: dict[str, tuple[Recipe, bool]] = {}
    for arm in arms:
        recipe, listed = _recipe(arm)
        label = str(arm) if listed or recipe.name in found else recipe.name
        if label in found:
            raise InputError(f"compare: arm {label} is named twice; variants are YAML files, each with its own name")
        found[label] = recipe, listed
    return found


def _recipe(arm: str | Path | Recipe) -> tuple[Recipe, bool]:
    if isinstance(arm, Recipe):
        return arm, False
    if str(arm).endswith((".yaml", ".yml")):
        return Recipe.load(arm), False
    return catalogue.card(str(arm)).recipe(), True


def _checked(tasks: Sequence[str]) -> list[str]:
    """The families of the tasks. Raises :class:`InputError` for one that cannot be made or has no held-out episodes."""
    families = []
    for spec in tasks:
        task = registry.make(spec)
        if isinstance(task, Task):
            try:
                task.environment("test", 0).close()
            except InputError as error:
                raise InputError(f"task {spec}: has no held-out episodes to compare on ({error})") from None
        if task.family not in DEFAULT_BUDGET:
            raise InputError(f"task {spec}: no policy is trained on it, so there is nothing to compare")
        families.append(task.family)
    return families


def _refuse_the_impossible(plan: Plan, labelled: Mapping[str, tuple[Recipe, bool]]) -> None:
    if len(plan.arms) < 2:
        raise InputError(f"compare: needs at least two arms, got {len(plan.arms)}")
    if not plan.tasks or len(set(plan.tasks)) < len(plan.tasks):
        raise InputError("compare: name at least one task, and each only once")
    if len(plan.seeds) < 2:
        raise InputError(f"seeds = {len(plan.seeds)}: needs at least 2, or nothing can be said about chance")
    if len(set(plan.seeds)) < len(plan.seeds) or min(plan.seeds) < 0:
        raise InputError(f"seeds = {list(plan.seeds)}: must be different numbers from 0 on")
    for name in ("budget", "evaluations", "episodes", "threads"):
        if getattr(plan, name) < 1:
            raise InputError(f"{name} = {getattr(plan, name)}: must be at least 1")
    if plan.pass_at < 0 or plan.pass_at == 1:
        raise InputError(f"pass_at = {plan.pass_at}: must be at least 2 (pass@1 comes with it), or 0 for none")
    for label, (recipe, _) in labelled.items():
        try:
            recipe.with_values(plan.values)
        except InputError as error:
            raise InputError(f"arm {label}: {error}") from None


def default_folder(plan: Plan) -> str:
    """Where a comparison lies when nobody says where."""
    return f"runs/compare-{folder_name('-'.join(plan.arms))}-{folder_name('-'.join(plan.tasks))}"


def _jobs(jobs: int | None, device: str, threads: int) -> int:
    if jobs is not None:
        if jobs < 1:
            raise InputError(f"jobs = {jobs}: must be at least 1")
        return jobs
    accelerated = device not in ("auto", "cpu") or (device == "auto" and torch.cuda.is_available())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if accelerated else max(1, cores // threads)


# ---- its folder ------------------------------------------------------------------------------------------------------


def _begin(folder: Path, plan: Plan) -> None:
    """Make the folder of a new comparison, or see that this one continues or extends what is there."""
    file, arms = folder / "plan.json", plan.arms
    earlier = read_recorded(file, Plan, VERSION, "the plan of a comparison")
    if earlier is not None:
        if any(folder.glob("runs/*/*/*/trial.json")):
            _refuse_another(earlier, plan, folder)
            arms = {**earlier.arms, **plan.arms}
        elif earlier != plan:
            shutil.rmtree(folder / "runs", ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        RunDirectory(folder).write_json("plan.json", {"version": VERSION, **dataclasses.asdict(plan), "arms": arms})
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def _refuse_another(earlier: Plan, plan: Plan, folder: Path) -> None:
    """Arms, tasks and seeds may be added to what has been run; everything else must be the same."""
    for field in dataclasses.fields(Plan):
        before, now = getattr(earlier, field.name), getattr(plan, field.name)
        if field.name not in ("arms", "from_catalogue", "tasks", "seeds") and before != now:
            raise InputError(f"{folder}: holds runs with {field.name} = {before}, not {now}; choose another --out")
    for label, recipe in plan.arms.items():
        if earlier.arms.get(label, recipe) != recipe:
            raise InputError(f"{folder}: holds runs of another recipe named {label}; choose another --out")


# ---- what came of it ------------------------------------------------------------------------------------------------


def _recipes_as_run(folder: Path, plan: Plan, trials: Sequence[Trial]) -> dict[str, dict[str, str]]:
    """By task and arm; every seed of them ran the same."""
    recipes: dict[str, dict[str, str]] = {task: {} for task in plan.tasks}
    for trial in trials:
        file = Place(trial.arm, trial.task, trial.seed).directory(folder) / "recipe.yaml"
        recipes[trial.task].setdefault(trial.arm, file.read_text(encoding="utf-8"))
    return recipes


def _story(broken: Mapping[Place, BrokenRunError], plan: Plan, folder: Path) -> str:
    place, error = next(iter(broken.items()))
    return (
        f"{len(broken)} of {len(places_of(plan))} runs broke, first {place}: {error}; "
        f"what is finished stays in {folder}, and the same command tries the others again"
    )
