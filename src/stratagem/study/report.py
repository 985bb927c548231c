"""The report page: one HTML file that shows what one or several runs did, and needs no network."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.recipe import Change
from stratagem.study.curve import COLORS, Line, curve_svg, lines
from stratagem.study.outcome import MEASURES, MODES, measure_of, scores
from stratagem.study.page import DASHES, Meeting, write_page
from stratagem.study.record import RunRecord, read_runs
from stratagem.training.run_directory import RunDirectory

TRAINING = {"success": "success per batch", "reward": "reward per batch"}
DIAGNOSTICS = {
    "entropy": "entropy (nats per token)",
    "grad_norm": "gradient norm",
    "clip_fraction": "clip fraction",
    "kl": "KL from the reference",
    "kl_old": "KL from the policy before the step",
    "completions/mean_length": "tokens per episode",
}


def write_report(runs: Sequence[RunDirectory], path: Path, title: str) -> Path:
    """Write the page to ``path`` and return it: verdicts, curves, episodes before and after, recipes, environments.

    What a run has not written, or was cut in the middle of, the page says to be missing. Raises :class:`InputError`
    when there are no runs or ``path`` cannot be written.
    """
    records = read_runs(runs)
    return write_page(
        "report.html.jinja",
        path,
        title,
        _charts(records),
        stories=[_story(record, COLORS[place % len(COLORS)]) for place, record in enumerate(records)],
        several=len(records) > 1,
        picture=curve_svg(records),
    )


# ---- curves ----------------------------------------------------------------------------------------------------------


def _charts(records: Sequence[RunRecord]) -> dict[str, list[dict[str, Any]]]:
    """Charts by section; each holds traces with their values on every horizontal axis, as plain data for the page.

    percent: values are shares.  whole: the vertical axis shows all of 0 to 1.
    """
    held_out = [
        {
            "title": f"held-out {measure.name}",
            "percent": measure.percent,
            "whole": measure.percent,
            "traces": [_held_out_trace(line, _named(records, line.run)) for line in lines(records, measure)],
        }
        for measure in MEASURES
    ]
    sections = {
        "held_out": held_out,
        "calibration": [_calibration_chart(records)],
        "training": [_metric_chart(records, name, title) for name, title in TRAINING.items()],
        "diagnostics": [_metric_chart(records, name, title) for name, title in DIAGNOSTICS.items()],
    }
    return {name: [chart for chart in charts if chart["traces"]] for name, charts in sections.items()}


def _held_out_trace(line: Line, record: RunRecord) -> dict[str, Any]:
    return {
        "name": f"{line.run}, {line.mode}",
        "color": line.color,
        "dash": "dash" if line.dashed else "solid",
        "symbol": "diamond" if line.dashed else "circle",
        "x": record.axes([score.step for score in line.scores]),
        "y": [score.value for score in line.scores],
        "low": [score.low if score.has_interval else score.value for score in line.scores],
        "high": [score.high if score.has_interval else score.value for score in line.scores],
    }


def _calibration_chart(records: Sequence[RunRecord]) -> dict[str, Any]:
    """What models said of held-out pairs against what was true, by the last evaluation of each run that measured it."""
    traces: list[dict[str, Any]] = []
    for place, record in enumerate(records):
        found = next((row["calibration"] for row in reversed(record.evaluations) if row.get("calibration")), None)
        if found is None:
            continue
        low, high = found["error_interval"]
        name = f"{record.label}: error {found['error']:.3f} [{low:.3f}, {high:.3f}]"
        traces.append(
            _diagonal(name, COLORS[place % len(COLORS)], "solid", found["said"], found["held"])
            | {"low": found["low"], "high": found["high"], "symbol": "circle"}
        )
    if traces:
        traces.append(_diagonal("calibrated", "#888", "dot", [0.0, 1.0], [0.0, 1.0]))
    return {"title": "share that was preferred", "axis": "probability said", "percent": True, "whole": True} | {
        "traces": traces
    }


def _diagonal(name: str, color: str, dash: str, said: Sequence[float], held: Sequence[float]) -> dict[str, Any]:
    """A line over probabilities, whatever the other curves are over."""
    every_axis = {axis: list(said) for axis in ("steps", "tokens", "minutes")}
    return {"name": name, "color": color, "dash": dash, "x": every_axis, "y": list(held)}


def _metric_chart(records: Sequence[RunRecord], name: str, title: str) -> dict[str, Any]:
    traces = []
    for place, record in enumerate(records):
        steps, values = record.series(name)
        if steps:
            dash = DASHES[place // len(COLORS) % len(DASHES)]
            color = COLORS[place % len(COLORS)]
            traces.append({"name": record.label, "color": color, "dash": dash, "x": record.axes(steps), "y": values})
    percent, whole = name in ("success", "clip_fraction"), name == "success"
    return {"title": title, "percent": percent, "whole": whole, "traces": traces}


def _named(records: Sequence[RunRecord], label: str) -> RunRecord:
    return next(record for record in records if record.label == label)


# ---- what each run's part of the page shows --------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """One run as the page tells it.

    tiles: each mode's value before and after, with intervals.  remarks: sentences beside the verdict.  meetings,
    training: episodes to read.  table: every evaluation.  card: what the catalogue knows of the recipe.  base: the
    recipe ``changes`` are counted from, None when there is none to compare with.  facts: settings and machine.
    """

    record: RunRecord
    color: str
    tiles: list[dict[str, str]]
    remarks: list[str]
    meetings: list[Meeting]
    training: list[Mapping[str, Any]]
    table: list[list[str]]
    card: catalogue.Card | None
    base: str | None
    changes: list[Change]
    command: str
    facts: list[tuple[str, str]]


def _story(record: RunRecord, color: str) -> Story:
    base, changes = _difference(record)
    command = record.environment.get("command")
    first = min((row["step"] for row in record.samples), default=None)
    last = max((row["step"] for row in record.samples), default=None)
    return Story(
        record=record,
        color=color,
        tiles=list(_tiles(record)),
        remarks=list(_remarks(record)),
        meetings=list(meetings(record)),
        training=[row for row in record.samples if row["step"] in (first, last)],
        table=list(_table(record)),
        card=_card(record.recipe_name),
        base=base,
        changes=changes,
        command=shlex.join(command) if isinstance(command, list) else "",
        facts=list(_facts(record)),
    )


def _tiles(record: RunRecord) -> Iterator[dict[str, str]]:
    measure = record.outcome.measure
    for change in record.outcome.changes:
        yield {
            "name": f"{change.mode} {measure.name}",
            "direction": change.direction,
            "before": measure.text(change.before.value),
            "after": measure.text(change.after.value),
            "intervals": f"{measure.interval(change.before)} → {measure.interval(change.after)}",
        }


def _remarks(record: RunRecord) -> Iterator[str]:
    """What a reader should know beside the verdict: an unfinished run, a better policy on the way, lost episodes."""
    done, asked = record.steps_done, record.steps_asked
    if asked is not None and done < asked:
        yield f"Only {done} of {asked} steps are written: the run is under way or was stopped."
    best, last = record.best_step, max((row["step"] for row in record.evaluations), default=None)
    if best is not None and best != last:
        yield f"The last policy is not the best: model/ holds that of step {best}, {_scores_at(record, best)}."
    failed = sum(row.get("failed", 0) for row in record.evaluations)
    if failed:
        yield f"Held-out episodes that failed: {failed}. They count in no average."
    skipped = sum(row.get("batch/skipped", 0) > 0 for row in record.metrics)
    if skipped:
        yield f"Batches that held nothing to learn from and cost no optimizer step: {skipped}."
    yield from record.notes


def _scores_at(record: RunRecord, step: int) -> str:
    measure = record.outcome.measure
    found = {mode: scores(record.evaluations, mode, measure) for mode in MODES}
    return ", ".join(f"{mode} {measure.score(s)}" for mode in MODES for s in found[mode] if s.step == step)


def meetings(record: RunRecord) -> Iterator[Meeting]:
    """Evaluation episodes of the first and the last evaluation, side by side."""
    for mode in MODES:
        rows = [row for row in record.evaluations if row.get("mode") == mode]
        played = [{sample.get("episode"): sample for sample in row.get("samples", [])} for row in rows]
        before, after = next(iter(played), {}), played[-1] if len(played) > 1 else {}
        for episode in dict.fromkeys([*before, *after]):
            yield Meeting(mode, episode, before.get(episode), after.get(episode))


def _table(record: RunRecord) -> Iterator[list[str]]:
    """Every evaluation as text: step, mode, score with interval, return, its deviation, turns, episodes, failed."""
    measure = measure_of(record.evaluations)
    for row in record.evaluations:
        found = scores([row], row.get("mode", ""), measure)
        means = [row.get(name) for name in ("mean_return", "std_return", "mean_length")]
        numbers = ["" if value is None else f"{value:.3g}" for value in means]
        counts = [str(row.get("episodes", "")), str(row.get("failed", ""))]
        yield [str(row["step"]), row.get("mode", ""), measure.score(found[0]) if found else "none", *numbers, *counts]


def _difference(record: RunRecord) -> tuple[str | None, list[Change]]:
    """The recipe's base and what it changes; without a base, the catalogue's recipe of the same name."""
    if record.recipe is None:
        return None, []
    base = _card(record.recipe.base or record.recipe.name)
    return (None, []) if base is None else (base.name, record.recipe.diff(base.recipe()))


def _card(name: str) -> catalogue.Card | None:
    try:
        return catalogue.card(name)
    except InputError:
        return None


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    packages = record.environment.get("packages") or {}
    asked = {name: value for name, value in record.request.items() if value is not None}
    machine = {
        n: v for n, v in record.environment.items() if n not in ("packages", "command", "seed") and v is not None
    }
    for name, value in {**asked, **machine, **packages}.items():
        yield name.replace("_", " "), str(value)
