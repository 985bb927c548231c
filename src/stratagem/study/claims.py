"""What a claim is: a paper's statement, the rule fixed beforehand, the measurements that decide it, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, Self, TypeVar

from annotated_types import MinLen

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.estimate import Estimate
from stratagem.part import import_entry_points
from stratagem.recorded import read_recorded
from stratagem.study.curve import write_whole
from stratagem.training.run_directory import machine

VERSION = 1
"""Of the file format; a file of another version is refused."""

BUDGET = 180.0
"""Seconds a claim may take on two cores."""

FOLDER = Path("results/claims")
"""Where records are written, and looked for first."""

Verdict = Literal["holds", "fails", "inconclusive"]
Experiment = Callable[[int], Mapping[str, float]]
_Experiment = TypeVar("_Experiment", bound=Experiment)


# ---- what is claimed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expect:
    """Where ``quantity`` lies if the paper is right: ``above`` and ``below`` these bounds, both exclusive.

    Either may be None, not both. Raises :class:`InputError` for bounds that are not finite or leave no room.
    """

    quantity: str
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.above, self.below) if bound is not None]
        if not bounds or not all(map(math.isfinite, bounds)) or bounds != sorted(set(bounds)):
            raise InputError(f"expectation {self.quantity!r}: needs above, below, or above < below, all finite")

    def verdict(self, estimate: Estimate) -> Verdict:
        """``holds`` when the whole interval lies inside the region, ``fails`` when none of it does."""
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        if above < estimate.low and estimate.high < below:
            return "holds"
        return "fails" if estimate.high <= above or estimate.low >= below else "inconclusive"

    @property
    def region(self) -> str:
        """``above 0``, ``below 1`` or ``between 0 and 1``."""
        if self.above is not None and self.below is not None:
            return f"between {self.above:g} and {self.below:g}"
        return f"below {self.below:g}" if self.above is None else f"above {self.above:g}"


@dataclass(frozen=True)
class Claim:
    """What a paper says of its technique, and a small experiment that decides by a rule fixed beforehand.

    technique: name in the catalogue.  statement: what the paper says, in our words.  source: where it says so.
    baseline: what the technique is compared with.  rule: the claim holds when every expectation does.
    scale: how far the experiment reaches, and what it cannot show.
    experiment: values by name for one seed; beyond those of the rule, any that help to read them.
    """

    technique: str
    statement: str
    source: str
    baseline: str
    rule: tuple[Expect, ...]
    scale: str
    experiment: Experiment

    def __post_init__(self) -> None:
        quantities = [expect.quantity for expect in self.rule]
        if not quantities or len(set(quantities)) < len(quantities):
            raise InputError(f"claim {self.technique}: its rule needs expectations, each of another quantity")


_CLAIMS: dict[str, Claim] = {}


def claim(
    technique: str, *, statement: str, source: str, baseline: str, rule: Sequence[Expect], scale: str
) -> Callable[[_Experiment], _Experiment]:
    """Enter an experiment as the claim of a technique; the arguments are those of :class:`Claim`."""

    def enter(experiment: _Experiment) -> _Experiment:
        earlier = _CLAIMS.get(technique)
        if earlier is not None and earlier.experiment.__module__ != experiment.__module__:
            raise InputError(f"technique {technique!r} already has a claim, from {earlier.experiment.__module__}")
        _CLAIMS[technique] = Claim(technique, statement, source, baseline, tuple(rule), scale, experiment)
        return experiment

    return enter


def claims(family: str | Collection[str] = ()) -> list[Claim]:
    """Claims of all or of these families, by catalogue order. Raises :class:`InputError` for an unknown family."""
    _load()
    return [_CLAIMS[card.name] for card in catalogue.cards(family) if card.name in _CLAIMS]


def find_claim(technique: str) -> Claim:
    """The claim of a technique. Raises :class:`InputError` when it has none, or is not in the catalogue."""
    _load()
    name = catalogue.card(technique).name
    if name not in _CLAIMS:
        raise InputError(f"technique {name!r} has no claim")
    return _CLAIMS[name]


@cache
def _load() -> None:
    """Import our claims and everything installed under the entry-point group ``stratagem.claims``."""
    import_module("stratagem.claims")
    import_entry_points("stratagem.claims")


# ---- what is measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """A claim's experiment over some seeds.

    values: by quantity, in the order of ``seeds``.  estimates: by quantity, mean over the seeds with its 95 % interval.
    seconds: of all seeds together.  command: that asked for it, empty when it was asked for from Python.
    environment: versions, machine and commit.  date: when it began, UTC.
    """

    seeds: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    estimates: dict[str, Estimate]
    verdict: Verdict
    seconds: float
    command: str
    environment: dict[str, Any]
    date: str


def run_claim(
    claim: Claim, seeds: Sequence[int], *, command: str = "", progress: Callable[[], None] = lambda: None
) -> Measurement:
    """Run a claim's experiment once with each seed and judge it. ``progress`` is called after each.

    Raises :class:`InputError` for fewer than two different seeds, :class:`BrokenRunError` naming claim and seed when
    the experiment raises, leaves out a quantity or measures one that is not finite: that is no verdict.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise InputError(f"claim {claim.technique}: needs two or more different seeds, not {list(seeds)}")
    date, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    rows = []
    for seed in seeds:
        rows.append(_measure(claim, seed))
        if rows[-1].keys() != rows[0].keys():
            raise BrokenRunError(f"claim {claim.technique}, seed {seed}: did not measure what seed {seeds[0]} did")
        progress()
    values = {quantity: tuple(row[quantity] for row in rows) for quantity in rows[0]}
    estimates = {quantity: over_seeds(measured) for quantity, measured in values.items()}
    verdict = _verdict(claim.rule, estimates)
    seconds = time.perf_counter() - start
    return Measurement(tuple(seeds), values, estimates, verdict, seconds, command, machine(), date)


def _measure(claim: Claim, seed: int) -> dict[str, float]:
    where = f"claim {claim.technique}, seed {seed}"
    try:
        values = {quantity: float(value) for quantity, value in claim.experiment(seed).items()}
    except Exception as error:
        raise BrokenRunError(f"{where}: {type(error).__name__}: {error}") from error
    for expect in claim.rule:
        if expect.quantity not in values:
            raise BrokenRunError(f"{where}: {expect.quantity!r} was not measured")
    for quantity, value in values.items():
        if not math.isfinite(value):
            raise BrokenRunError(f"{where}: {quantity!r} is {value}")
    return values


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and Student interval; a quantity that is the same for every seed is exact and has no width."""
    from stratagem.training.statistics import mean_interval  # brings in scipy, for which no listing should wait

    if min(values) == max(values):
        return Estimate(values[0], values[0], values[0])
    return Estimate(fmean(values), *mean_interval(values))


def _verdict(rule: Sequence[Expect], estimates: Mapping[str, Estimate]) -> Verdict:
    verdicts = {expect.verdict(estimates[expect.quantity]) for expect in rule}
    return "fails" if "fails" in verdicts else "holds" if verdicts == {"holds"} else "inconclusive"


# ---- what is recorded -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A claim and its measurements, as ``results/claims/TECHNIQUE.json`` holds them; fields are those of the claim."""

    technique: str
    statement: str
    source: str
    baseline: str
    rule: tuple[Expect, ...]
    scale: str
    measurements: Annotated[tuple[Measurement, ...], MinLen(1)] = ()
    version: int = VERSION

    @classmethod
    def of(cls, claim: Claim, earlier: Record | None = None) -> Self:
        """The record of a claim as it stands, with the measurements of an earlier one if it says the same."""
        kept = earlier.measurements if earlier is not None and earlier.describes(claim) else ()
        return cls(claim.technique, claim.statement, claim.source, claim.baseline, claim.rule, claim.scale, kept)

    def describes(self, claim: Claim) -> bool:
        """Whether statement, baseline and rule are the claim's; what was measured for others says nothing of it."""
        return (self.statement, self.baseline, self.rule) == (claim.statement, claim.baseline, claim.rule)

    def adding(self, measurement: Measurement) -> Self:
        """The record with one more measurement, which replaces those whose seeds are all among its own."""
        kept = [known for known in self.measurements if not set(known.seeds) <= set(measurement.seeds)]
        return dataclasses.replace(self, measurements=(*kept, measurement))

    @property
    def verdict(self) -> Verdict:
        """What all measurements agree on; ``inconclusive`` when it flips with fresh seeds."""
        verdicts = {measurement.verdict for measurement in self.measurements}
        return verdicts.pop() if len(verdicts) == 1 else "inconclusive"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of all measurements."""
        return tuple(sorted({seed for measurement in self.measurements for seed in measurement.seeds}))

    @property
    def seconds(self) -> float:
        """Of all measurements together."""
        return sum(measurement.seconds for measurement in self.measurements)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By quantity, over the seeds of all measurements; where two measured a seed, the later counts."""
        if len(self.measurements) == 1:
            return self.measurements[0].estimates
        by_seed: dict[str, dict[int, float]] = {}
        for measurement in self.measurements:
            for quantity, values in measurement.values.items():
                by_seed.setdefault(quantity, {}).update(zip(measurement.seeds, values, strict=True))
        return {quantity: over_seeds(list(values.values())) for quantity, values in by_seed.items()}


def write_record(record: Record, folder: Path = FOLDER) -> Path:
    """Write a record whole or not at all, with its verdict for whoever reads the file.

    Raises :class:`InputError` when the folder cannot be written.
    """
    plain = {"verdict": record.verdict, **dataclasses.asdict(record)}
    return write_whole(folder / f"{record.technique}.json", json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def read_record(technique: str, folder: Path = FOLDER) -> Record | None:
    """The record of a technique in this folder, None when there is none.

    Raises :class:`InputError` when it is broken or of another version.
    """
    return read_recorded(folder / f"{technique}.json", Record, VERSION, "the record of a claim")


def recorded(technique: str) -> Record | None:
    """The record of a technique: the one in ``results/claims`` here, else the one that ships with Stratagem."""
    return read_record(technique) or read_record(technique, shipped(FOLDER))


def shipped(folder: Path) -> Path:
    """Where what we recorded in ``folder`` lies: inside an installed package, beside ``src`` in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / folder
    return installed if installed.is_dir() else package.parents[1] / folder
