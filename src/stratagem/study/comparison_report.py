"""The comparison's page: verdicts in words, numbers, curves, seeds, recipes, episodes, and how to argue with them."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stratagem.errors import InputError
from stratagem.estimate import Estimate
from stratagem.recipe import Recipe
from stratagem.study.comparison import Band, Comparison, Contrast, Plan, Quantity, Summary, Trial, Verdict, whole_seeds
from stratagem.study.contest_text import contest_table
from stratagem.study.curve import COLORS
from stratagem.study.outcome import MEASURES, SUCCESS, Direction, Measure, Score
from stratagem.study.page import DASHES, Meeting, environment_facts, write_page

BY_NAME = {measure.name: measure for measure in MEASURES}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "pentagon")
DIRECTIONS: dict[Verdict, Direction] = {"better": "rose", "worse": "fell", "no difference": "unchanged"}
FIGURES = {"entropy": "entropy at the end, nats", "length": "length at the end, tokens"}
QUANTITIES: dict[Quantity, str] = {"final": "final {}", "area": "{} over the budget"}


def write_comparison_report(comparison: Comparison, path: Path) -> Path:
    """Write the page to ``path`` and return it.

    It shows what the comparison holds and nothing else; what it does not hold (episodes, a recipe that cannot be built
    here), the page says to be missing. Raises :class:`InputError` when ``path`` cannot be written.
    """
    plan = comparison.plan
    judgements = [judgement(comparison, arm) for arm in list(plan.arms)[1:]]
    return write_page(
        "comparison.html.jinja",
        path,
        question(plan),
        {
            "arms": [{"name": arm, **_look(place)} for place, arm in enumerate(plan.arms)],
            "curves": [_curves(comparison, task) for task in plan.tasks],
            "finals": [_finals(comparison, task) for task in plan.tasks],
            "differences": [_differences(comparison, task) for task in plan.tasks if judgements],
        },
        plan=plan,
        judgements=judgements,
        overview=overview(judgements) if len(judgements) > 1 else "",
        shared=list(_shared(plan)),
        remarks=list(_remarks(comparison)),
        directions=DIRECTIONS,
        results=[_results(comparison, place) for place in _places(comparison)],
        contests=[contest_table(contest) for contest in comparison.analysis.contests],
        recipes=list(_recipes(comparison)),
        episodes=list(_episodes(comparison)),
        command=comparison.command,
        again=with_fresh_seeds(comparison.command, plan.seeds),
        facts=list(environment_facts(comparison.environment)),
    )


# ---- verdicts in words -----------------------------------------------------------------------------------------------


def question(plan: Plan) -> str:
    """What the comparison asks: ``Does rloo beat grpo on key_door?``"""
    reference, others, tasks = plan.reference, list(plan.arms)[1:], _listed(plan.tasks)
    match len(others):
        case 0:
            return f"How does {reference} do on {tasks}?"
        case 1:
            return f"Does {others[0]} beat {reference} on {tasks}?"
        case 2 | 3:
            return f"Do {_listed(others)} beat {reference} on {tasks}?"
        case count:
            return f"Which of {count} recipes beat {reference} on {tasks}?"


@dataclass(frozen=True)
class Finding:
    """One contrast in words: ``final success, key_door``, ``+12.0 points``, and what that rests on."""

    name: str
    difference: str
    grounds: str
    direction: Direction


@dataclass(frozen=True)
class Judgement:
    """What the contrasts of one arm say, all of them.

    headline: one sentence.  better, worse: how many contrasts show it.  direction: where those point that show
    anything; ``mixed`` when both ways.
    """

    arm: str
    color: str
    headline: str
    findings: list[Finding]

    @property
    def better(self) -> int:
        """Measurements in which the arm is shown to be better."""
        return sum(finding.direction == "rose" for finding in self.findings)

    @property
    def worse(self) -> int:
        """Measurements in which it is shown to be worse."""
        return sum(finding.direction == "fell" for finding in self.findings)

    @property
    def direction(self) -> Direction | Literal["mixed"]:
        """Where the differences point that are shown."""
        if self.better and self.worse:
            return "mixed"
        return "rose" if self.better else "fell" if self.worse else "unchanged"


def judgement(comparison: Comparison, arm: str) -> Judgement:
    """The verdict on an arm: a headline that claims no more than its contrasts show, and each of them."""
    contrasts = [contrast for contrast in comparison.analysis.contrasts if contrast.arm == arm]
    seeds = min((s.seeds for s in comparison.analysis.summaries if s.arm == arm), default=0)
    return Judgement(
        arm=arm,
        color=_look(list(comparison.plan.arms).index(arm))["color"],
        headline=_headline(arm, comparison.plan.reference, Counter(c.verdict for c in contrasts), seeds),
        findings=[finding(contrast, measure_on(comparison, contrast.task)) for contrast in contrasts],
    )


def finding(contrast: Contrast, measure: Measure) -> Finding:
    """A contrast in words."""
    place = "all tasks together" if contrast.task is None else contrast.task
    value, interval = _difference(contrast.difference, measure)
    verdict = "no difference shown" if contrast.verdict == "no difference" else contrast.verdict
    return Finding(
        name=f"{QUANTITIES[contrast.quantity].format(measure.name)}, {place}",
        difference=f"{value} points" if measure.percent else value,
        grounds=f"{interval}, adjusted p {_p(contrast.adjusted_p)}: {verdict}",
        direction=DIRECTIONS[contrast.verdict],
    )


def overview(judgements: Sequence[Judgement]) -> str:
    """All arms in one line, by direction, with how many measurements show it."""
    kinds = {"rose": "Better", "fell": "Worse", "mixed": "Better and worse", "unchanged": "No difference shown"}
    lines = []
    for direction, words in kinds.items():
        arms = [j for j in judgements if j.direction == direction]
        names = [f"{j.arm} ({j.better + j.worse} of {len(j.findings)})" if j.better + j.worse else j.arm for j in arms]
        lines += [f"{words}: {_listed(names)}."] if names else []
    return " ".join(lines)


def _headline(arm: str, reference: str, verdicts: Counter[Verdict], seeds: int) -> str:
    better, worse, of = verdicts["better"], verdicts["worse"], verdicts.total()
    if not of:
        return f"{arm} could not be compared with {reference}."
    if not better and not worse:
        return f"No difference between {arm} and {reference} was shown with {seeds} seeds."
    if better == of:
        return f"{arm} beats {reference}."
    if worse == of:
        return f"{arm} does worse than {reference}."
    shown = [f"{word} in {count}" for word, count in (("better", better), ("worse", worse)) if count]
    rest = f"; no difference was shown in {of - better - worse}" if better + worse < of else ""
    return f"Of {of} measurements against {reference}, {arm} is {' and '.join(shown)}{rest}."


# ---- numbers as text -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """The numbers of one task, or of all together. Rows of ``contrasts`` end with the verdict.

    figure_columns, figures: what else was measured; empty where nothing was.
    """

    heading: str
    score_columns: list[str]
    scores: list[list[str]]
    figure_columns: list[str]
    figures: list[list[str]]
    contrast_columns: list[str]
    contrasts: list[list[str]]


def _results(comparison: Comparison, task: str | None) -> Results:
    measure, analysis = measure_on(comparison, task), comparison.analysis
    threshold = analysis.thresholds.get(task) if task is not None else None
    reaching = [] if threshold is None else [f"tokens to {measure.text(threshold)}"]
    unit = "difference, points" if measure.percent else "difference"
    summaries = [summary for summary in analysis.summaries if summary.task == task]
    names = list(dict.fromkeys(name for summary in summaries for name in summary.figures))
    return Results(
        heading="All tasks together" if task is None else task,
        score_columns=[
            "arm", f"final {measure.name}", "greedy", "over the budget", *reaching,
            "tokens of a run", "seconds of a run", "peak memory, MiB",
        ],
        scores=[_score_row(summary, measure, bool(reaching)) for summary in summaries],
        figure_columns=["arm", *(FIGURES.get(name, name) for name in names)] if names else [],
        figures=[[s.arm, *(_figure(name, s.figures.get(name)) for name in names)] for s in summaries] if names else [],
        contrast_columns=[
            "arm", "measurement", unit, "95 % interval", "probability of improvement", "p", "adjusted p", "verdict",
        ],
        contrasts=[_contrast_row(contrast, measure) for contrast in analysis.contrasts if contrast.task == task],
    )  # fmt: skip


def _score_row(summary: Summary, measure: Measure, reaching: bool) -> list[str]:
    scores = [score_text(estimate, measure) for estimate in (summary.final, summary.greedy, summary.area)]
    tokens = summary.tokens_to_threshold
    reached = "not reached" if tokens is None else f"{tokens:,.0f}"
    costs = [f"{cost:,.0f}" for cost in (summary.tokens, summary.seconds, summary.peak_memory)]
    return [summary.arm, *scores, *([f"{reached} ({summary.reached} of {summary.runs})"] if reaching else []), *costs]


def _figure(name: str, estimate: Estimate | None) -> str:
    if estimate is None:
        return "not measured"
    if name.startswith("pass@"):
        return score_text(estimate, SUCCESS)
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _contrast_row(contrast: Contrast, measure: Measure) -> list[str]:
    chance = contrast.probability_of_improvement
    return [
        contrast.arm,
        QUANTITIES[contrast.quantity].format(measure.name),
        *_difference(contrast.difference, measure),
        f"{chance.value:.2f} [{chance.low:.2f}, {chance.high:.2f}]",
        _p(contrast.p),
        _p(contrast.adjusted_p),
        contrast.verdict,
    ]


def score_text(estimate: Estimate, measure: Measure) -> str:
    """A score as a person reads it: ``80 % [75, 85]``."""
    return measure.score(Score(0, estimate.value, estimate.low, estimate.high, 0))


def _difference(estimate: Estimate, measure: Measure) -> tuple[str, str]:
    """Value and interval with their signs; a difference of shares in percentage points."""

    def signed(value: float) -> str:
        return f"{100 * value:+.1f}" if measure.percent else f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"

    return signed(estimate.value), f"[{signed(estimate.low)}, {signed(estimate.high)}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# ---- what the charts draw --------------------------------------------------------------------------------------------


def _look(place: int) -> dict[str, str]:
    """How an arm is drawn: three cues that repeat after 6, 4 and 8 arms, so that 24 arms can be told apart."""
    looks = (("color", COLORS), ("dash", DASHES), ("symbol", SYMBOLS))
    return {cue: choices[place % len(choices)] for cue, choices in looks}


def _curves(comparison: Comparison, task: str) -> dict[str, Any]:
    """The bands of a task: ``bands[axis][mode]`` is a list of arms. ``range``: of the scores, whatever is chosen."""
    bands = [band for band in comparison.analysis.bands if band.task == task]
    drawn: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for band in bands:
        drawn.setdefault(band.axis, {}).setdefault(band.mode, []).append(_plain(band))
    threshold = comparison.analysis.thresholds.get(task)
    bounds = [bound for band in bands for bound in (*band.low, *band.high) if math.isfinite(bound)]
    margin = 0.04 * (max(bounds) - min(bounds)) if bounds else 0.0
    span = [min(bounds) - margin, max(bounds) + margin] if margin else None
    return {**_panel(comparison, task), "threshold": _finite(threshold), "range": span, "bands": drawn}


def _plain(band: Band) -> dict[str, Any]:
    numbers = {"x": band.x, "value": band.value, "low": band.low, "high": band.high}
    return {"arm": band.arm, **{name: [_finite(value) for value in values] for name, values in numbers.items()}}


def _finals(comparison: Comparison, task: str) -> dict[str, Any]:
    """Every seed's final score, and the estimate the summary makes of them."""
    rows = [
        _row(summary.arm, summary.final, _final_by_seed(comparison, summary.arm, task))
        for summary in comparison.analysis.summaries
        if summary.task == task
    ]
    return {**_panel(comparison, task), "rows": rows}


def _differences(comparison: Comparison, task: str) -> dict[str, Any]:
    """Every seed's final score minus the reference's of the same seed, and the estimate the contrast makes of them."""
    reference = _final_by_seed(comparison, comparison.plan.reference, task)
    rows = []
    for contrast in comparison.analysis.contrasts:
        if contrast.task == task and contrast.quantity == "final":
            scores = _final_by_seed(comparison, contrast.arm, task)
            paired = {seed: score - reference[seed] for seed, score in scores.items() if seed in reference}
            rows.append(_row(contrast.arm, contrast.difference, paired))
    return {**_panel(comparison, task), "rows": rows}


def _panel(comparison: Comparison, task: str) -> dict[str, Any]:
    measure = measure_on(comparison, task)
    return {"task": task, "measure": measure.name, "percent": measure.percent}


def _row(arm: str, estimate: Estimate, by_seed: dict[int, float]) -> dict[str, Any]:
    numbers = {"value": _finite(estimate.value), "low": _finite(estimate.low), "high": _finite(estimate.high)}
    return {"arm": arm, **numbers, "seeds": list(by_seed), "scores": [_finite(score) for score in by_seed.values()]}


def _final_by_seed(comparison: Comparison, arm: str, task: str) -> dict[int, float]:
    """The sampled score at the end of the budget, linear between evaluations, by seed; of the seeds that count."""
    budget, whole = comparison.plan.budget, whole_seeds(comparison.plan, comparison.trials)
    return {trial.seed: _score_at(trial, budget) for trial in _trials(comparison, arm, task) if trial.seed in whole}


def _score_at(trial: Trial, tokens: int) -> float:
    return float(np.interp(tokens, [p.tokens for p in trial.points], [p.sampled for p in trial.points]))


def _finite(value: float | None) -> float | None:
    """The value, or None for what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


# ---- recipes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecipeTable:
    """Recipes side by side, as they ran on ``tasks``.

    arms: those that can be built here.  rows: fields in which they differ, with a value per arm; None where an arm has
    no such field.  texts: every arm's YAML.  problems: why an arm is not in the table.
    """

    tasks: str
    arms: list[str]
    rows: dict[str, list[Any]]
    texts: dict[str, str]
    problems: dict[str, str]


def _recipes(comparison: Comparison) -> Iterator[RecipeTable]:
    """One table for tasks on which every arm ran the same recipe."""
    remaining = {task: texts for task in comparison.plan.tasks if (texts := comparison.recipes.get(task))}
    while remaining:
        texts = next(iter(remaining.values()))
        tasks = [task for task, other in remaining.items() if other == texts]
        remaining = {task: other for task, other in remaining.items() if task not in tasks}
        yield _recipe_table(tasks, {arm: texts[arm] for arm in comparison.plan.arms if arm in texts})


def _recipe_table(tasks: Sequence[str], texts: dict[str, str]) -> RecipeTable:
    flat: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for arm, text in texts.items():
        try:
            flat[arm] = Recipe.from_yaml(text, arm).flat()
        except InputError as error:
            problems[arm] = str(error)
    paths = sorted({path for fields in flat.values() for path in fields})  # a part's fields follow the part
    values = {path: [fields.get(path) for fields in flat.values()] for path in paths}
    differing = {path: row for path, row in values.items() if any(value != row[0] for value in row)}
    return RecipeTable(_listed(tasks), list(flat), differing, texts, problems)


# ---- episodes, conditions and the way back ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """Held-out episodes of one run before and after training."""

    task: str
    arm: str
    seed: int
    meetings: list[Meeting]


def _episodes(comparison: Comparison) -> Iterator[Played]:
    """Of every arm's first seed that kept any, so that arms are seen on the same start states."""
    for task in comparison.plan.tasks:
        for arm in comparison.plan.arms:
            for trial in [trial for trial in _trials(comparison, arm, task) if trial.meetings][:1]:
                yield Played(task, arm, trial.seed, [Meeting(**meeting) for meeting in trial.meetings])


def with_fresh_seeds(command: str, seeds: Sequence[int]) -> str:
    """The ``stratagem compare`` command with as many seeds, none of them used yet, and its results in another folder.

    Empty when the comparison was made by a program of the user's.
    """
    words = shlex.split(command)
    if "compare" not in words:
        return ""
    folder = words[words.index("--out") + 1] if "--out" in words[:-1] else "runs/compare"
    fresh = {"--seeds": str(len(seeds)), "--first-seed": str(max(seeds) + 1), "--out": f"{folder}-again"}
    for option, value in fresh.items():
        if option in words:
            words[words.index(option) + 1] = value
        else:
            words += [option, value]
    return shlex.join(words)


def _shared(plan: Plan) -> Iterator[tuple[str, str]]:
    """What was the same for every arm."""
    yield "model", plan.model or "the default: the tiny model for text, a fresh policy for control"
    yield (
        "start states",
        "every score is of held-out ones, which training never meets; a game of the lab is judged exactly",
    )
    yield "budget", f"{plan.budget:,} tokens (actions, for control) a run"
    yield "seeds", ", ".join(map(str, plan.seeds))
    yield "evaluations", f"before training and {plan.evaluations} on the way, {plan.episodes} episodes in each mode"
    threads = f"{plan.threads} thread{'s' * (plan.threads > 1)}"
    yield "computed with", f"precision {plan.precision}, device {plan.device}, {threads} a run"
    for path, value in plan.values.items():
        yield path, str(value)


def _remarks(comparison: Comparison) -> Iterator[str]:
    """What a reader should know beside the verdicts."""
    yield from comparison.analysis.notes
    failed: Counter[str] = Counter()
    for trial in comparison.trials:
        failed[trial.arm] += trial.failed_episodes
    if failed.total():
        counts = _listed([f"{arm} {count}" for arm, count in failed.items()])
        yield f"training episodes that failed and taught nothing: {counts}"


# ---- what the comparison says of a task ------------------------------------------------------------------------------


def _places(comparison: Comparison) -> list[str | None]:
    """All tasks together first, where that was summarised, then each."""
    together = any(summary.task is None for summary in comparison.analysis.summaries)
    return [None, *comparison.plan.tasks] if together else list(comparison.plan.tasks)


def measure_on(comparison: Comparison, task: str | None) -> Measure:
    """What the task is judged by; tasks are only put together when all are judged by success."""
    names = (trial.measure for trial in comparison.trials if task in (None, trial.task))
    return BY_NAME[next(names, SUCCESS.name)]


def _trials(comparison: Comparison, arm: str, task: str) -> list[Trial]:
    """By seed."""
    found = (trial for trial in comparison.trials if (trial.arm, trial.task) == (arm, task))
    return sorted(found, key=lambda trial: trial.seed)


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
