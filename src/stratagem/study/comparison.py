"""What a comparison is: its plan, the runs that answered it, what statistics make of them, and its file."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.recorded import read_recorded

VERSION = 1
"""Of the file format; a file of another version is refused."""

BEFORE = "before training"
"""The player of a contest that every arm began as."""

MeasureName = Literal["success", "mean return", "win rate against the start"]
Axis = Literal["tokens", "minutes"]
Quantity = Literal["final", "area"]
Verdict = Literal["better", "worse", "no difference"]


# ---- what was asked and measured ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is compared, and the conditions every arm shares.

    arms: recipe as YAML by the arm's label, before it is adapted to a kind of task; the first arm is the reference the
    others are judged against.  from_catalogue: labels of those that are adapted.
    tasks: specifications.  seeds: each arm runs each task with each of them.
    budget: tokens a run may sample (actions, for control).  model: folder or hub name; None for the default.
    values: fields changed in every arm, by dotted path.
    evaluations: held-out evaluations on the way, beside the one before training, evenly over the budget.
    episodes: held-out episodes of an evaluation, in each mode.
    precision, device, threads: as every run computes; ``threads`` is of one run.
    pass_at: k of the pass@k that is measured of every finished run's best policy, beside pass@1; 0: not measured.
    """

    arms: dict[str, str]
    from_catalogue: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: int
    model: str | None
    values: dict[str, Any]
    evaluations: int
    episodes: int
    precision: str
    device: str
    threads: int
    pass_at: int = 0

    @property
    def reference(self) -> str:
        """The arm the others are judged against."""
        return next(iter(self.arms))


@dataclass(frozen=True)
class Point:
    """Held-out scores after ``step`` batches: ``tokens`` sampled and ``seconds`` spent on training until then.

    sampled, greedy: success, mean return or win rate, whichever the task is judged by; finite.
    """

    step: int
    tokens: int
    seconds: float
    sampled: float
    greedy: float


@dataclass(frozen=True)
class Trial:
    """One finished run: an arm on a task with a seed.

    measure: what its scores are.  points: in order, the first before training.  peak_memory: MiB of the whole process.
    meetings: held-out episodes before and after training, as plain data for a reader: ``mode``, ``episode``,
    ``before``, ``after`` (transcripts, or None).
    figures: what else was measured, by name: ``entropy`` (nats) and ``length`` (tokens of an episode) in the last tenth
    of the batches, and pass@k of the best policy where the plan asks for it.
    """

    arm: str
    task: str
    seed: int
    measure: MeasureName
    points: tuple[Point, ...]
    tokens: int
    seconds: float
    optimizer_steps: int
    peak_memory: float
    failed_episodes: int
    meetings: tuple[dict[str, Any], ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


# ---- what statistics make of it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One arm on one task, or on all of them together (``task`` None).

    final: sampled score at the end of the budget.  greedy: the same, greedy.  area: mean sampled score over the budget
    (area under the curve over tokens, divided by the budget). All three are interquartile means over runs.
    tokens_to_threshold: tokens by which half of the runs had reached the threshold, sampled (None when fewer than half
    did within the budget), ``reached``: how many of the ``runs`` did.
    tokens, seconds: mean of a run.  peak_memory: largest of a run, in MiB.
    figures: what else was measured of every run (:attr:`Trial.figures`), interquartile means.
    """

    arm: str
    task: str | None
    seeds: int
    runs: int
    final: Estimate
    greedy: Estimate
    area: Estimate
    tokens_to_threshold: float | None
    reached: int
    tokens: float
    seconds: float
    peak_memory: float
    figures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Contrast:
    """An arm against the reference in one quantity on one task, or on all together (``task`` None).

    difference: interquartile mean of the differences between runs of equal seed.  probability_of_improvement: that a
    run of the arm beats one of the reference, ties counting half.  p: of Student's paired test on the differences
    per seed, averaged over tasks.  adjusted_p: by Benjamini and Yekutieli over all contrasts of the comparison.
    """

    arm: str
    reference: str
    task: str | None
    quantity: Quantity
    difference: Estimate
    probability_of_improvement: Estimate
    p: float
    adjusted_p: float
    verdict: Verdict


@dataclass(frozen=True)
class Band:
    """The curve of an arm on a task: interquartile mean over seeds with its interval, on a common grid."""

    arm: str
    task: str
    mode: Literal["sampled", "greedy"]
    axis: Axis
    x: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Contest:
    """The final policies of all arms against each other on a task, judged by the task's own oracle.

    players: the arms in their order, and then :data:`BEFORE`, the policy that training began with.  seeds: that count.
    prompts: held-out ones that were answered.  exact: whether that is every answer there is, weighed by how likely it
    is, so that chance comes in by the seeds alone.
    wins: ``wins[i][j]``, how often an answer of player ``i`` is preferred to one of ``j``, ties counted half: mean over
    seeds, with the Student interval of the differences between policies of equal seed. ``wins[i][j] + wins[j][i] = 1``,
    and the interval of one is that of the other turned round.
    exploitability: of every player, ``max_y P(y > pi) - 1/2``, how far the best answer to it is preferred; half of the
    duality gap. None where not all answers can be listed.
    by_seed: the win rates of each seed.
    """

    task: str
    oracle: str
    players: tuple[str, ...]
    seeds: tuple[int, ...]
    prompts: int
    exact: bool
    wins: tuple[tuple[Estimate, ...], ...]
    exploitability: tuple[Estimate, ...] | None
    by_seed: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True)
class Analysis:
    """What a comparison came to. ``thresholds``: by task, the score ``tokens_to_threshold`` counts to.

    contests: of tasks that say themselves which of two answers is preferred.
    """

    thresholds: dict[str, float]
    summaries: tuple[Summary, ...]
    contrasts: tuple[Contrast, ...]
    bands: tuple[Band, ...]
    notes: tuple[str, ...] = ()
    contests: tuple[Contest, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All of a comparison, as ``results.json`` holds it.

    command: that made it.  environment: versions and machine.  recipes: by task and arm, the recipe as it ran, as YAML.
    """

    plan: Plan
    trials: tuple[Trial, ...]
    analysis: Analysis
    command: str
    environment: dict[str, Any]
    recipes: dict[str, dict[str, str]]
    version: int = VERSION


def whole_seeds(plan: Plan, trials: Sequence[Trial]) -> list[int]:
    """Seeds with which every arm finished every task and has a score there; no other counts in any figure."""
    finished = Counter(trial.seed for trial in trials if trial.points)
    return [seed for seed in plan.seeds if finished[seed] == len(plan.arms) * len(plan.tasks)]


# ---- its file -------------------------------------------------------------------------------------------------------


def to_json(comparison: Comparison) -> str:
    """The comparison as JSON text."""
    return json.dumps(dataclasses.asdict(comparison), indent=1, ensure_ascii=False) + "\n"


def read_comparison(path: Path) -> Comparison:
    """Read ``results.json``, or the one in this folder.

    Raises :class:`InputError` when it is missing, broken or of another version.
    """
    path = path / "results.json" if path.is_dir() else path
    comparison = read_recorded(path, Comparison, VERSION, "the results of a comparison")
    if comparison is None:
        raise InputError(f"{path}: there is no such file, so there are no results to read")
    return comparison
