"""How stale a batch may be, and how different the engine that sampled it: success and importance ratios in the lab."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.estimate import Estimate
from stratagem.recipe import Recipe
from stratagem.recorded import read_recorded
from stratagem.study.claims import over_seeds
from stratagem.study.curve import write_whole
from stratagem.study.workers import Call, run_apart
from stratagem.training.run_directory import command_line, file_name, machine

VERSION = 1
"""Of the file format; a file of another version is refused."""

KEPT = 0.8
"""A recipe survives a condition when it still reaches this share of what it reaches in the first one."""

Fate = Literal["survives", "breaks", "unclear"]


@dataclass(frozen=True)
class Condition:
    """What makes a batch off-policy.

    staleness: batches ago from which the sampling weights are.  mismatch: of the sampling engine, as ``lab:`` tasks
    have it.
    """

    staleness: int = 0
    mismatch: float = 0.0

    @property
    def name(self) -> str:
        """``staleness 8``, ``mismatch 0.5``, or both."""
        words = [f"staleness {self.staleness}"] if self.staleness or not self.mismatch else []
        return ", ".join([*words, *([f"mismatch {self.mismatch:g}"] if self.mismatch else [])])


@dataclass(frozen=True)
class Plan:
    """What is asked; everything the numbers follow from, together with the recipes.

    games: of the lab.  conditions: the first is what the others are measured against.  batches: in each run.
    updates: optimizer steps on each batch.  learning_rate: of every recipe.
    experts: of the policy, a small mixture whose weights all states share; 0 is a table, in which an update of one
    state spoils no other, so that nearly everything survives.
    """

    games: tuple[str, ...] = ("length", "corridor")
    conditions: Annotated[tuple[Condition, ...], MinLen(1)] = (
        Condition(),
        Condition(2),
        Condition(8),
        Condition(32),
        Condition(mismatch=0.5),
    )
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batches: int = 80
    updates: int = 4
    learning_rate: float = 0.1
    experts: int = 4

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < max(2, len(self.seeds)):
            raise InputError(f"stress: needs two or more different seeds, not {list(self.seeds)}")
        if self.batches < 1 or self.updates < 1 or not self.learning_rate > 0:
            raise InputError("stress: batches and updates must be at least 1, learning_rate above 0")
        for condition in self.conditions:
            if condition.staleness < 0 or not 0 <= condition.mismatch < math.inf:
                raise InputError(f"stress: {condition.name}: must be at least 0")


@dataclass(frozen=True)
class Endured:
    """A recipe under one condition, by seed.

    scores: final return, 0 where the run began and 1 at the best possible, mean over games.
    successes: final success, mean over games.
    largest_ratios: largest ``pi / mu`` of a sampled token at the end of its batch, over the whole run, greatest over
    games; infinite where logits were not finite any more.
    """

    scores: tuple[float, ...]
    successes: tuple[float, ...]
    largest_ratios: tuple[float, ...]

    @property
    def largest_ratio(self) -> float:
        """Median over seeds."""
        return median(self.largest_ratios)


@dataclass(frozen=True)
class Stress:
    """What came of it. arms: by name, the recipe as YAML; refused: arms that cannot be asked this, and why."""

    plan: Plan
    arms: dict[str, str]
    endured: dict[str, tuple[Endured, ...]]
    refused: dict[str, str] = field(default_factory=dict)
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    date: str = ""
    seconds: float = 0.0
    version: int = VERSION

    def success(self, arm: str, place: int) -> Estimate:
        """Final success under condition number ``place``, over seeds; no success is below 0 or above 1."""
        found = over_seeds(self.endured[arm][place].successes)
        return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))

    def fate(self, arm: str, place: int) -> Fate:
        """Whether the arm reaches ``KEPT`` of its own score under the first condition; seeds are pairs."""
        first, here = self.endured[arm][0].scores, self.endured[arm][place].scores
        margin = over_seeds([ours - KEPT * theirs for ours, theirs in zip(here, first, strict=True)])
        return "survives" if margin.low > 0 else "breaks" if margin.high < 0 else "unclear"

    def to_json(self) -> str:
        """As text; infinite ratios are written as null."""
        plain = dataclasses.asdict(self)
        for arm in plain["endured"].values():
            for endured in arm:
                endured["largest_ratios"] = [r if math.isfinite(r) else None for r in endured["largest_ratios"]]
        return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


def read_stress(path: Path) -> Stress | None:
    """Read what :func:`stress` wrote; None when there is nothing. Raises :class:`InputError` when it is broken."""
    found = read_recorded(path / "results.json" if path.is_dir() else path, _Written, VERSION, "the record of a stress")
    if found is None:
        return None
    endured = {
        arm: tuple(
            Endured(e.scores, e.successes, tuple(math.inf if r is None else r for r in e.largest_ratios)) for e in rows
        )
        for arm, rows in found.endured.items()
    }
    return Stress(**{**{f.name: getattr(found, f.name) for f in dataclasses.fields(Stress)}, "endured": endured})


def stress(
    arms: Sequence[str] | Mapping[str, Recipe],
    plan: Plan | None = None,
    *,
    out: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, arm: None,
) -> Stress:
    """Train every arm in every game under every condition with every seed, and write ``results.json`` into ``out``.

    arms: names of the catalogue (or YAML files), or recipes by label. Each is finished in a process of its own,
    ``jobs`` side by side, and what is finished is never done again: the same call goes on where a killed one stopped.
    A recipe that learns from something else than its own rollouts is refused with the reason.

    Raises :class:`InputError` for an unknown name, or a folder that holds the answer to another question;
    :class:`BrokenRunError` when an arm broke, after the others are done.
    """
    plan, date, clock = plan or Plan(), datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    recipes = dict(arms) if isinstance(arms, Mapping) else {name: catalogue.recipe(name) for name in arms}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) if out is None else out
        earlier = read_stress(folder)
        if earlier is not None and earlier.plan != plan:
            raise InputError(f"stress: {folder} holds the answer to another question; choose another --out")
        texts = {name: recipe.to_yaml() for name, recipe in recipes.items()}
        todo = [name for name in recipes if _read_arm(folder, name, texts[name], plan) is None]
        logs = folder / "logs"
        calls = [
            Call(_endure, (name, texts[name], plan, str(_file(folder, name))), logs / f"{file_name(name)}.txt")
            for name in todo
        ]
        broken, refused = [], {}
        for done, ended in enumerate(run_apart(calls, jobs or os.cpu_count() or 1), 1):
            name = todo[ended.call]
            if isinstance(ended.error, InputError):
                refused[name] = str(ended.error)
            elif ended.error is not None:
                broken.append(f"{name}: {ended.error}")
            progress(done, len(calls), name)
        endured = {name: _read_arm(folder, name, texts[name], plan) for name in recipes}
        found = {name: rows for name, rows in endured.items() if rows is not None}
        seconds = time.perf_counter() - clock + (earlier.seconds if earlier is not None else 0.0)
        shown = {name: texts[name] for name in found}
        result = Stress(plan, shown, found, refused, shlex.join(command_line()), machine(), date, seconds)
        write_whole(folder / "results.json", result.to_json())
    if broken:
        raise BrokenRunError("; ".join(broken))
    return result


# ---- one arm --------------------------------------------------------------------------------------------------------


def endure(recipe: Recipe, plan: Plan) -> tuple[Endured, ...]:
    """One recipe under every condition of the plan."""
    recipe = recipe.with_values({"optimization.minibatches": plan.updates})
    return tuple(_under(recipe, plan, condition) for condition in plan.conditions)


def _under(recipe: Recipe, plan: Plan, condition: Condition) -> Endured:
    rows = [list(_runs(recipe, plan, condition, seed)) for seed in plan.seeds]
    return Endured(
        tuple(fmean(score for score, _, _ in row) for row in rows),
        tuple(fmean(success for _, success, _ in row) for row in rows),
        tuple(max(ratio for _, _, ratio in row) for row in rows),
    )


def _runs(recipe: Recipe, plan: Plan, condition: Condition, seed: int) -> Iterator[tuple[float, float, float]]:
    """Score, success and largest ratio of every game."""
    from stratagem.lab import find_game
    from stratagem.lab.world import LabTask
    from stratagem.study.experiments import learn, score

    for game in plan.games:
        off_policy = dataclasses.asdict(condition)
        task = LabTask(find_game(game), experts=plan.experts, **off_policy)
        run = learn(recipe, task, seed, plan.batches, learning_rate=plan.learning_rate)
        yield score(run), run.last.success, max(run.largest_ratios)


def _endure(name: str, recipe: str, plan: Plan, path: str) -> None:
    rows = endure(Recipe.from_yaml(recipe, name), plan)
    write_whole(Path(path), Stress(plan, {name: recipe}, {name: rows}).to_json())


def _file(folder: Path, name: str) -> Path:
    return folder / "arms" / f"{file_name(name)}.json"


def _read_arm(folder: Path, name: str, recipe: str, plan: Plan) -> tuple[Endured, ...] | None:
    """What is finished of an arm; None when there is nothing, or it is of another recipe or plan."""
    found = read_stress(_file(folder, name))
    return found.endured[name] if found is not None and (found.plan, found.arms) == (plan, {name: recipe}) else None


@dataclass(frozen=True)
class _WrittenEndured:
    scores: tuple[float, ...]
    successes: tuple[float, ...]
    largest_ratios: tuple[float | None, ...]


@dataclass(frozen=True)
class _Written:
    """The file, in which null stands for an infinite ratio."""

    plan: Plan
    arms: dict[str, str]
    endured: dict[str, tuple[_WrittenEndured, ...]]
    refused: dict[str, str]
    command: str
    environment: dict[str, Any]
    date: str
    seconds: float
    version: int
