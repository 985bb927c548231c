"""From the runs of a comparison to its figures: summaries, contrasts with verdicts, and curves on a common grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy import stats

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.seeding import numpy_generator
from stratagem.study import statistics
from stratagem.study.comparison import (
    Analysis,
    Axis,
    Band,
    Contrast,
    MeasureName,
    Plan,
    Point,
    Quantity,
    Summary,
    Trial,
    whole_seeds,
)

GRID = 41
"""Points of a band."""

Mode = Literal["sampled", "greedy"]


def analyse(
    plan: Plan,
    trials: Sequence[Trial],
    threshold: float | None = None,
    seed: int = 0,
    resamples: int = statistics.RESAMPLES,
) -> Analysis:
    """What the trials of a plan come to. The rules are fixed here, before any run.

    A curve is linear between its points and level beyond them, and it counts up to exactly ``plan.budget`` tokens,
    which the last batch of a run oversteps. A seed counts when every arm finished every task with it. Every arm but
    the first is contrasted with the first, on every task and, when there are several and all are judged by success,
    on all of them together; each in final score and in area. p is adjusted over all these contrasts by Benjamini and
    Yekutieli's procedure, which allows them to hang together as those of one run do, so a comparison of recipes that do
    not differ calls a difference at most 5 times in 100.

    threshold: score that ``tokens_to_threshold`` counts to, on every task; by default what the reference came to
    there, its final interquartile mean.  seed: of the resampling.  resamples: of each interval.

    Raises :class:`InputError` when fewer than two seeds count, or when the threshold is no share (0 to 1) although a
    task is judged by success.
    """
    cells, notes = _cells(plan, trials)
    evidence = _Evidence(plan, cells, seed, resamples)
    thresholds = {task: _threshold(cells[plan.reference, task], threshold) for task in plan.tasks}
    return Analysis(
        thresholds=thresholds,
        summaries=tuple(_summary(evidence, arm, task, thresholds) for task in evidence.scopes for arm in plan.arms),
        contrasts=_contrasts(evidence),
        bands=tuple(band for arm, task in cells for band in _bands(evidence, arm, task)),
        notes=(*notes, *evidence.notes),
    )


@dataclass(frozen=True)
class _Cell:
    """The runs of one arm on one task, one per seed that counts; ``final``, ``greedy`` and ``area`` are [seeds]."""

    trials: tuple[Trial, ...]
    final: Float[np.ndarray, " seeds"]
    greedy: Float[np.ndarray, " seeds"]
    area: Float[np.ndarray, " seeds"]

    @classmethod
    def of(cls, trials: Sequence[Trial], budget: int) -> _Cell:
        curves = [_curve(trial, "sampled", budget) for trial in trials]
        return cls(
            tuple(trials),
            final=np.array([y[-1] for _, y in curves]),
            greedy=np.array([_curve(trial, "greedy", budget)[1][-1] for trial in trials]),
            area=np.array([statistics.average(x, y) for x, y in curves]),
        )


@dataclass(frozen=True)
class _Evidence:
    """What all figures are made from: the cells by arm and task, and how to resample them."""

    plan: Plan
    cells: dict[tuple[str, str], _Cell]
    seed: int
    resamples: int

    @property
    def scopes(self) -> dict[str | None, tuple[str, ...]]:
        """The tasks of every figure: each by itself, and all together under None where they share a scale."""
        tasks = self.plan.tasks
        alone: dict[str | None, tuple[str, ...]] = {task: (task,) for task in tasks}
        together = len(tasks) > 1 and all(map(self.by_success, tasks))
        return alone | ({None: tasks} if together else {})

    @property
    def notes(self) -> Iterator[str]:
        """Why there is no figure of all tasks together."""
        if len(self.scopes) == len(self.plan.tasks) > 1:
            without = ", ".join(
                f"{task} ({self.measure(task)})" for task in self.plan.tasks if not self.by_success(task)
            )
            yield f"no figures for all tasks together, since not all are judged by success: {without}"

    def by_success(self, task: str) -> bool:
        """Whether its scores are shares of episodes."""
        return self.measure(task) == "success"

    def measure(self, task: str) -> MeasureName:
        """What it is judged by."""
        return self.cells[self.plan.reference, task].trials[0].measure

    def scores(
        self, arm: str, scope: str | None, quantity: Literal["final", "greedy", "area"]
    ) -> Float[np.ndarray, "tasks seeds"]:
        """Scores of the runs of an arm, a row per task."""
        return np.stack([getattr(self.cells[arm, task], quantity) for task in self.scopes[scope]])

    def rng(self, *path: str | None) -> np.random.Generator:
        """Every figure has draws of its own, so that one arm more changes no other's interval."""
        return numpy_generator(self.seed, "analysis", *(part or "" for part in path))


# ---- which runs count -----------------------------------------------------------------------------------------------


def _cells(plan: Plan, trials: Sequence[Trial]) -> tuple[dict[tuple[str, str], _Cell], list[str]]:
    """The runs with seeds that every arm finished on every task, lowest seed first, and what a reader must know."""
    done = {(trial.arm, trial.task, trial.seed): trial for trial in trials if trial.points}
    places = [(arm, task) for arm in plan.arms for task in plan.tasks]
    counted = sorted(whole_seeds(plan, trials))
    notes = []
    for seed in sorted(set(plan.seeds) - set(counted)):
        missing = [f"{arm} on {task}" for arm, task in places if (arm, task, seed) not in done]
        notes.append(f"seed {seed} left out: no finished run with a score of {', '.join(missing)}")
    if len(counted) < 2:
        raise InputError(
            f"seeds: {len(counted)} of {len(set(plan.seeds))} were finished by every arm on every task; "
            "a comparison needs at least 2"
        )
    cells = {place: _Cell.of([done[*place, seed] for seed in counted], plan.budget) for place in places}
    return cells, notes + [note for cell in cells.values() for note in _ended_early(cell, plan.budget)]


def _ended_early(cell: _Cell, budget: int) -> Iterator[str]:
    for trial in cell.trials:
        if (last := trial.points[-1].tokens) < budget:
            where = f"{trial.arm} on {trial.task}, seed {trial.seed}"
            yield f"{where}: its last score, after {last:,} of {budget:,} tokens, stands for the end of the budget"


# ---- figures --------------------------------------------------------------------------------------------------------


def _curve(trial: Trial, mode: Mode, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores over tokens, from 0 to the budget."""
    tokens = np.array([point.tokens for point in trial.points], dtype=float)
    return statistics.until(tokens, _heights(trial, mode), budget)


def _heights(trial: Trial, mode: Mode) -> np.ndarray:
    return np.array([getattr(point, mode) for point in trial.points], dtype=float)


def _threshold(reference: _Cell, asked: float | None) -> float:
    if asked is None:
        return float(stats.trim_mean(reference.final, 0.25))
    first = reference.trials[0]
    if first.measure == "success" and not 0 <= asked <= 1:
        raise InputError(f"threshold = {asked}: {first.task} is judged by success, a share from 0 to 1")
    return asked


def _summary(evidence: _Evidence, arm: str, scope: str | None, thresholds: dict[str, float]) -> Summary:
    def estimate(quantity: Literal["final", "greedy", "area"]) -> Estimate:
        rng = evidence.rng("summary", arm, scope, quantity)
        return statistics.interquartile_mean(evidence.scores(arm, scope, quantity), rng, evidence.resamples)

    trials = [trial for task in evidence.scopes[scope] for trial in evidence.cells[arm, task].trials]
    curves = ((_curve(trial, "sampled", evidence.plan.budget), thresholds[trial.task]) for trial in trials)
    reach = np.array([statistics.first_reach(x, y, level) for (x, y), level in curves])
    middle = float(np.quantile(reach, 0.5, method="inverted_cdf"))
    return Summary(
        arm=arm,
        task=scope,
        seeds=len(evidence.cells[arm, evidence.plan.tasks[0]].trials),
        runs=len(trials),
        final=estimate("final"),
        greedy=estimate("greedy"),
        area=estimate("area"),
        tokens_to_threshold=middle if math.isfinite(middle) else None,
        reached=int(np.isfinite(reach).sum()),
        tokens=float(np.mean([trial.tokens for trial in trials])),
        seconds=float(np.mean([trial.seconds for trial in trials])),
        peak_memory=max(trial.peak_memory for trial in trials),
        figures=_figures(evidence, arm, scope),
    )


def _figures(evidence: _Evidence, arm: str, scope: str | None) -> dict[str, Estimate]:
    """What else was measured, where every run has a number for it."""
    runs = [evidence.cells[arm, task].trials for task in evidence.scopes[scope]]
    names = [name for name in runs[0][0].figures if all(name in trial.figures for row in runs for trial in row)]
    found = {}
    for name in names:
        values = np.array([[trial.figures[name] for trial in row] for row in runs])
        if np.isfinite(values).all():
            rng = evidence.rng("figure", arm, scope, name)
            found[name] = statistics.interquartile_mean(values, rng, evidence.resamples)
    return found


def _contrasts(evidence: _Evidence) -> tuple[Contrast, ...]:
    """Every contrast of the comparison, judged together."""
    _, *others = evidence.plan.arms
    raw = [
        _contrast(evidence, arm, scope, quantity)
        for scope in evidence.scopes
        for arm in others
        for quantity in get_args(Quantity)
    ]
    adjusted = map(float, stats.false_discovery_control([contrast.p for contrast in raw], method="by"))
    return tuple(
        dataclasses.replace(contrast, adjusted_p=p, verdict=statistics.verdict(p, contrast.difference))
        for contrast, p in zip(raw, adjusted, strict=True)
    )


def _contrast(evidence: _Evidence, arm: str, scope: str | None, quantity: Quantity) -> Contrast:
    """One contrast by itself, its p not yet adjusted and its verdict open."""
    plan = evidence.plan
    own, reference = (evidence.scores(name, scope, quantity) for name in (arm, plan.reference))
    # One episode is the step of a share; an area averages the evaluations of a run, so its steps are that much smaller.
    episodes = plan.episodes * (plan.evaluations + 1 if quantity == "area" else 1)
    resolution = 1 / episodes if all(map(evidence.by_success, evidence.scopes[scope])) else 0.0
    p = statistics.paired_p(own - reference, resolution)
    draws, resamples = evidence.rng("contrast", arm, scope, quantity), evidence.resamples
    return Contrast(
        arm=arm,
        reference=plan.reference,
        task=scope,
        quantity=quantity,
        difference=statistics.interquartile_mean(own - reference, draws, resamples),
        probability_of_improvement=statistics.probability_of_improvement(own, reference, draws, resamples),
        p=p,
        adjusted_p=p,
        verdict="no difference",
    )


def _bands(evidence: _Evidence, arm: str, task: str) -> Iterator[Band]:
    """Both modes over tokens up to the budget, and over minutes up to where the shortest run ends."""
    trials = evidence.cells[arm, task].trials
    shortest = min(trial.points[-1].seconds for trial in trials) / 60
    axes: dict[Axis, tuple[float, Callable[[Point], float]]] = {
        "tokens": (evidence.plan.budget, lambda point: point.tokens),
        "minutes": (shortest, lambda point: point.seconds / 60),
    }
    modes: tuple[Mode, ...] = get_args(Mode)
    for axis, (end, place) in axes.items():
        grid = np.linspace(0, end, GRID)
        curves = [
            [np.interp(grid, [place(point) for point in trial.points], _heights(trial, mode)) for trial in trials]
            for mode in modes
        ]
        rng = evidence.rng("band", arm, task, axis)
        drawn = statistics.interquartile_band(np.swapaxes(curves, 1, 2), rng, evidence.resamples)
        for mode, *lines in zip(modes, *drawn, strict=True):
            value, low, high = (tuple(line.tolist()) for line in lines)
            yield Band(arm, task, mode, axis, tuple(grid.tolist()), value, low, high)
