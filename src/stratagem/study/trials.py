"""The runs of a comparison: each in a process of its own, finished ones never again, and what came of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from stratagem import run
from stratagem.errors import BrokenRunError, InputError
from stratagem.recipe import Recipe
from stratagem.recorded import read_recorded
from stratagem.study.comparison import VERSION, MeasureName, Plan, Point, Trial
from stratagem.study.outcome import MODES, scores
from stratagem.study.record import RunRecord, read_runs
from stratagem.study.report import meetings
from stratagem.study.workers import Call, run_apart
from stratagem.tasks.task import state_key
from stratagem.training.run_directory import RunDirectory, file_name

Progress = Callable[[int, int, str], None]
"""Called with the number of finished runs, of all runs, and a line about the newest."""


@dataclass(frozen=True)
class Place:
    """One run of the plan."""

    arm: str
    task: str
    seed: int

    def directory(self, folder: Path) -> Path:
        """Its run directory, in the folder of the comparison."""
        return folder / "runs" / folder_name(self.arm) / folder_name(self.task) / f"seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.arm} on {self.task}, seed {self.seed}"


def places_of(plan: Plan) -> list[Place]:
    """All runs, seed by seed, so that a comparison cut short has whole seeds."""
    return [Place(arm, task, seed) for seed in plan.seeds for task in plan.tasks for arm in plan.arms]


def folder_name(name: str) -> str:
    """A file name for this name: itself where it can be one, else what can be kept of it and a hash."""
    kept = file_name(name)[:60]
    return kept if kept == name else f"{kept}-{state_key(name) % 16**6:06x}"


# ---- the runs --------------------------------------------------------------------------------------------------------


def run_all(
    folder: Path, plan: Plan, jobs: int, progress: Progress | None
) -> tuple[list[Trial], dict[Place, BrokenRunError]]:
    """Finish every run that is not; the trials in the order of the plan, and what broke."""
    places = places_of(plan)
    trials = {place: trial for place in places if (trial := _finished(place.directory(folder))) is not None}
    missing = [place for place in places if place not in trials]
    calls = [
        Call(_run_one, (plan, place, place.directory(folder)), place.directory(folder) / "log.txt", plan.threads)
        for place in missing
    ]
    if progress is not None:
        progress(len(trials), len(places), f"{len(trials)} of {len(places)} runs are finished")
    broken: dict[Place, BrokenRunError] = {}
    try:
        with closing(run_apart(calls, jobs)) as endings:
            for ended in endings:
                place = missing[ended.call]
                if isinstance(ended.error, InputError):
                    raise InputError(f"{place}: {ended.error}") from None
                if ended.error is not None:
                    broken[place] = ended.error
                    continue
                trial = _finished(place.directory(folder))
                assert trial is not None, f"{place} ended well without its trial.json"
                trials[place] = trial
                if progress is not None:
                    progress(len(trials), len(places), _line(trial))
    except KeyboardInterrupt:
        raise BrokenRunError(
            f"stopped and saved; {len(trials)} of {len(places)} runs are finished in {folder}, and the same command "
            "goes on with the others"
        ) from None
    return [trials[place] for place in places if place in trials], broken


def _run_one(plan: Plan, place: Place, directory: Path) -> None:
    """In a process of its own: begin the run or continue it, and write down what came of it."""
    # A comparison that was killed may have left a process that is still saving.
    with FileLock(directory.with_name(f".{directory.name}.lock"), timeout=600):
        if _finished(directory) is not None:
            return
        if (directory / "run.json").exists():
            run.resume(directory)
        else:
            recipe = Recipe.from_yaml(plan.arms[place.arm], f"arm {place.arm}")
            run.train(
                recipe.name if place.arm in plan.from_catalogue else recipe,
                place.task,
                model=plan.model,
                precision=plan.precision,  # type: ignore[arg-type]
                values=plan.values,
                out=directory,
                budget=plan.budget,
                seed=place.seed,
                evaluate_tokens=max(1, plan.budget // plan.evaluations),
                evaluation_episodes=plan.episodes,
                device=plan.device,
            )
        (record,) = read_runs([RunDirectory.existing(directory)])
        passes = _passes(plan, place, directory)
        trial = _summarized(record, place, passes, keep_episodes=place.seed == plan.seeds[0])
        RunDirectory(directory).write_json("trial.json", {"version": VERSION, **dataclasses.asdict(trial)})


# ---- what came of a run ----------------------------------------------------------------------------------------------


def _passes(plan: Plan, place: Place, directory: Path) -> dict[str, float]:
    """pass@1 and pass@k of the run's best policy, by name; nothing where the plan does not ask."""
    if not plan.pass_at:
        return {}
    found = run.pass_at(
        directory,
        (1, plan.pass_at),
        prompts=plan.episodes,
        seed=place.seed,
        precision=plan.precision,  # type: ignore[arg-type]
        device=plan.device,
    )
    return {f"pass@{k}": value for k, value in found.items()}


def _last(record: RunRecord) -> dict[str, float]:
    """Entropy and length of what was sampled in the last tenth of the batches, where the run says."""
    batches = record.metrics[-max(1, len(record.metrics) // 10) :]
    found = {}
    for name, metric in (("entropy", "entropy"), ("length", "completions/mean_length")):
        values = [row[metric] for row in batches if math.isfinite(row.get(metric, math.nan))]
        if values:
            found[name] = sum(values) / len(values)
    return found


def _summarized(record: RunRecord, place: Place, passes: dict[str, float], keep_episodes: bool) -> Trial:
    """The run as a trial; ``keep_episodes``: with some of what it played before and after."""
    measure = record.outcome.measure
    name: MeasureName = measure.name  # type: ignore[assignment]  # measures have no other names
    sampled, greedy = ({s.step: s.value for s in scores(record.evaluations, mode, measure)} for mode in MODES)
    steps = sorted(sampled.keys() & greedy.keys())
    minutes, last = record.axes(steps)["minutes"], record.metrics[-1]
    tokens = {0: 0} | {row["step"]: int(row["tokens/total"]) for row in record.metrics}
    points = tuple(
        Point(step, tokens[step], 60 * at, sampled[step], greedy[step]) for step, at in zip(steps, minutes, strict=True)
    )
    return Trial(
        arm=place.arm,
        task=place.task,
        seed=place.seed,
        measure=name,
        points=points,
        tokens=int(last["tokens/total"]),
        seconds=60 * record.axes([last["step"]])["minutes"][0],
        optimizer_steps=int(last["optimizer_steps"]),
        peak_memory=last["memory/peak"],
        failed_episodes=int(sum(row.get("episodes/failed", 0) for row in record.metrics)),
        meetings=tuple(dataclasses.asdict(meeting) for meeting in meetings(record)) if keep_episodes else (),
        figures={**passes, **_last(record)},
    )


def _finished(directory: Path) -> Trial | None:
    """What a finished run came to; None while it is not. Raises :class:`InputError` when its file is of no use."""
    return read_recorded(directory / "trial.json", Trial, VERSION, "a run of a comparison")


def _line(trial: Trial) -> str:
    first, last = trial.points[0], trial.points[-1]
    place = Place(trial.arm, trial.task, trial.seed)
    return f"{place}: sampled {trial.measure} {first.sampled:.2f} -> {last.sampled:.2f} in {trial.seconds:.0f} s"
