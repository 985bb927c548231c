"""What the files of a run say, whole or cut short; nothing here fails on a run that was killed."""

from __future__ import annotations

import bisect
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from stratagem.errors import InputError
from stratagem.recipe import Recipe
from stratagem.study.outcome import Outcome, best_step, outcome
from stratagem.training.run_directory import RunDirectory

PHASES = ("timing/rollout", "timing/credit", "timing/learn")
"""The parts of a training step; evaluation is not among them."""


@dataclass(frozen=True)
class RunRecord:
    """One run as read from its directory.

    label: tells it from the others.  request, environment: ``run.json`` and ``environment.json``, empty when missing.
    recipe: None when it cannot be built here; ``recipe_yaml`` is its text.  metrics, evaluations, samples: their rows.
    notes: what is missing or unreadable, as sentences.
    """

    label: str
    path: Path
    request: dict[str, Any]
    environment: dict[str, Any]
    recipe: Recipe | None
    recipe_yaml: str
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    notes: tuple[str, ...]

    @property
    def recipe_name(self) -> str:
        """The recipe's own name, or what was asked for."""
        return self.recipe.name if self.recipe is not None else str(self.request.get("recipe", "unknown recipe"))

    @property
    def steps_done(self) -> int:
        """Batches learned from."""
        return max((row["step"] for row in self.metrics), default=0)

    @property
    def steps_asked(self) -> int | None:
        """Batches the run was to learn from; None where a budget of tokens decides."""
        return None if self.request.get("budget") else self.request.get("steps")

    @cached_property
    def outcome(self) -> Outcome:
        """The verdict."""
        return outcome(self.evaluations)

    @property
    def best_step(self) -> int | None:
        """The step whose policy was kept."""
        return best_step(self.evaluations)

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, without what is not finite."""
        rows = [(row["step"], row[name]) for row in self.metrics if math.isfinite(row.get(name, math.nan))]
        return [step for step, _ in rows], [value for _, value in rows]

    def axes(self, steps: Sequence[int]) -> dict[str, list[float]]:
        """Where these steps lie on each horizontal axis: ``steps``, ``tokens`` sampled so far, training ``minutes``."""
        known, tokens, seconds = self._progress
        places = [bisect.bisect_right(known, step) for step in steps]
        return {
            "steps": [float(step) for step in steps],
            "tokens": [tokens[place] for place in places],
            "minutes": [seconds[place] / 60 for place in places],
        }

    @cached_property
    def _progress(self) -> tuple[list[int], list[float], list[float]]:
        """Steps that have metrics; tokens and seconds up to before the first, after the first, and so on."""
        tokens = accumulate((row.get("tokens/sampled", 0.0) for row in self.metrics), initial=0.0)
        seconds = accumulate((sum(row.get(phase, 0.0) for phase in PHASES) for row in self.metrics), initial=0.0)
        return [row["step"] for row in self.metrics], list(tokens), list(seconds)


def read_runs(runs: Sequence[RunDirectory]) -> list[RunRecord]:
    """Read runs and name them apart. Raises :class:`InputError` when there are none."""
    if not runs:
        raise InputError("report: name at least one run directory")
    records = [_read(run) for run in runs]
    return [dataclasses.replace(record, label=label) for record, label in zip(records, _labels(records), strict=True)]


def _read(run: RunDirectory) -> RunRecord:
    notes: list[str] = []

    def read(name: str, reader: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return reader()
        except InputError as error:
            notes.append(str(error).removeprefix(f"{run.path}{os.sep}"))
        except (OSError, ValueError):
            notes.append(f"{name}: missing or broken")
        return otherwise

    def rows(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read(name, lambda: run.rows(name), [])
        return found

    request = read("run.json", lambda: run.read_json("run.json"), {})
    environment = read("environment.json", lambda: run.read_json("environment.json"), {})
    recipe_file = run.path / "recipe.yaml"
    text = read("recipe.yaml", lambda: recipe_file.read_text(encoding="utf-8"), "")
    recipe = read("recipe.yaml", lambda: Recipe.from_yaml(text, str(recipe_file)), None) if text else None
    metrics, evaluations, samples = rows("metrics.jsonl"), rows("evaluations.jsonl"), rows("samples.jsonl")
    return RunRecord("", run.path, request, environment, recipe, text, metrics, evaluations, samples, tuple(notes))


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """The shortest names that tell the runs apart: by recipe, recipe and seed, directory, or path."""
    names: tuple[Callable[[RunRecord], str], ...] = (
        lambda record: record.recipe_name,
        lambda record: f"{record.recipe_name}, seed {record.request.get('seed')}",
        lambda record: record.path.name,
    )
    for name in names:
        labels = [name(record) for record in records]
        if len(set(labels)) == len(labels):
            return labels
    return [str(record.path) for record in records]
