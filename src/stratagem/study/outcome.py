"""Whether a policy learned: held-out scores before and after training, compared by their intervals, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["rose", "fell", "unchanged", "unknown"]

MODES = ("sampled", "greedy")


@dataclass(frozen=True)
class Measure:
    """What an evaluation is judged by: the ``field`` of its row, its name in a sentence, and how it is written."""

    field: str
    name: str
    percent: bool

    def text(self, value: float) -> str:
        """A value as a person reads it: ``97 %``, or three significant digits."""
        if not math.isfinite(value):
            return "unknown"
        return f"{self._digits(value)} %" if self.percent else self._digits(value)

    def interval(self, score: Score) -> str:
        """An interval as ``[95, 99]``; empty where there is none."""
        return f"[{self._digits(score.low)}, {self._digits(score.high)}]" if score.has_interval else ""

    def score(self, score: Score) -> str:
        """A value with its interval: ``97 % [95, 99]``."""
        return f"{self.text(score.value)} {self.interval(score)}".rstrip()

    def _digits(self, value: float) -> str:
        if self.percent:
            return f"{100 * value:.0f}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


SUCCESS = Measure("success", "success", percent=True)
MEAN_RETURN = Measure("mean_return", "mean return", percent=False)
WIN_RATE = Measure("win_rate", "win rate against the start", percent=True)

MEASURES = (WIN_RATE, SUCCESS, MEAN_RETURN)
"""The first that an evaluation has is what it is judged by."""


@dataclass(frozen=True)
class Score:
    """One held-out evaluation: value and 95 % interval (nan where too few episodes say) after ``step`` batches."""

    step: int
    value: float
    low: float
    high: float
    episodes: int

    @property
    def has_interval(self) -> bool:
        """Whether enough episodes were played for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Change:
    """What training did to one ``mode`` of acting (``sampled`` or ``greedy``)."""

    mode: str
    measure: Measure
    before: Score
    after: Score

    @property
    def difference(self) -> tuple[float, float]:
        """95 % interval of ``after - before``, from their own intervals (Newcombe's square-and-add).

        ``d - sqrt((after - after.low)^2 + (before.high - before)^2)`` to
        ``d + sqrt((after.high - after)^2 + (before - before.low)^2)``. Both play the same start states, which this
        leaves unused, so it is rather too wide than too narrow.
        """
        before, after = self.before, self.after
        d = after.value - before.value
        down = math.hypot(after.value - after.low, before.high - before.value)
        up = math.hypot(after.high - after.value, before.value - before.low)
        return d - down, d + up

    @property
    def direction(self) -> Direction:
        """``rose`` or ``fell`` when the interval of the difference excludes zero."""
        low, high = self.difference
        if math.isnan(low) or math.isnan(high):
            return "unknown"
        return "rose" if low > 0 else "fell" if high < 0 else "unchanged"

    @property
    def sentence(self) -> str:
        """``sampled success rose from 45 % [41, 49] to 97 % [95, 99]``, or as plainly that it did not."""
        what = f"{self.mode} {self.measure.name}"
        before, after = self.measure.score(self.before), self.measure.score(self.after)
        if self.direction in ("rose", "fell"):
            return f"{what} {self.direction} from {before} to {after}"
        if self.direction == "unchanged":
            return f"{what} did not measurably change: {before} before, {after} after"
        return f"{what} was {before} before and {after} after, from too few episodes to judge"


@dataclass(frozen=True)
class Outcome:
    """The verdict on one run; ``remark`` says why there is none when there is no change to judge."""

    measure: Measure
    changes: tuple[Change, ...]
    remark: str = ""

    @property
    def headline(self) -> str:
        """``learned``, ``got worse``, ``mixed``, ``did not rise``, or ``no verdict``."""
        directions = {change.direction for change in self.changes}
        if "rose" in directions:
            return "mixed" if "fell" in directions else "learned"
        if "fell" in directions:
            return "got worse"
        return "did not rise" if "unchanged" in directions else "no verdict"

    @property
    def reasons(self) -> str:
        """What the headline rests on, in one sentence."""
        return "; ".join([change.sentence for change in self.changes] or [self.remark])


def measure_of(evaluations: Sequence[Mapping[str, Any]]) -> Measure:
    """The win rate where answers are compared, else success where the task knows it, else the mean return."""
    known = (measure for measure in MEASURES if any(row.get(measure.field) is not None for row in evaluations))
    return next(known, MEAN_RETURN)


def scores(evaluations: Sequence[Mapping[str, Any]], mode: str, measure: Measure) -> list[Score]:
    """Evaluations in one mode, oldest first, without those in which no episode counted."""
    found = {}
    for row in evaluations:
        value = row.get(measure.field)
        if row.get("mode") == mode and value is not None and math.isfinite(value):
            low, high = (math.nan if bound is None else bound for bound in row.get("interval") or (None, None))
            found[row["step"]] = Score(row["step"], value, low, high, row.get("episodes", 0))
    return [found[step] for step in sorted(found)]


def outcome(evaluations: Sequence[Mapping[str, Any]]) -> Outcome:
    """The first evaluation against the last, in each mode."""
    measure = measure_of(evaluations)
    changes, once = [], []
    for mode in MODES:
        found = scores(evaluations, mode, measure)
        if len(found) > 1:
            changes.append(Change(mode, measure, found[0], found[-1]))
        elif found:
            once.append(f"{mode} {measure.name} was {measure.score(found[0])} at step {found[0].step}")
    if changes:
        return Outcome(measure, tuple(changes))
    if once:
        return Outcome(measure, (), f"evaluated only once; {', '.join(once)}")
    return Outcome(measure, (), "no held-out evaluation was written")


def best_step(evaluations: Sequence[Mapping[str, Any]]) -> int | None:
    """The step whose policy ``model/`` holds: the best sum of sampled and greedy score, the earliest on a tie."""
    measure = measure_of(evaluations)
    sampled, greedy = ({score.step: score.value for score in scores(evaluations, mode, measure)} for mode in MODES)
    both = sorted(sampled.keys() & greedy.keys())
    return max(both, key=lambda step: sampled[step] + greedy[step], default=None)
