"""``claim``: run the small experiments behind the techniques, and say which claims hold."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stratagem.errors import BrokenRunError, InputError
from stratagem.study import claims
from stratagem.study.claims import Claim, Record


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(claim)


def claim(
    names: Annotated[list[str] | None, typer.Argument(help="Techniques of the catalogue.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All techniques that have a claim.")] = False,
    family: Annotated[list[str] | None, typer.Option(help="With --all: only this family; repeat for more.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only what --out has no valid record of.")] = False,
    seeds: Annotated[int, typer.Option(min=2, help="Number of seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first; fresh seeds add to the record.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the records.")] = claims.FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Measure what papers claim, judge it by rules fixed beforehand, and record each claim as soon as it is judged.

    Exits with 1 when a claim fails. An experiment that breaks leaves no verdict, and the claims after it still run.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: must be a folder")
    work = [(chosen, claims.read_record(chosen.technique, out)) for chosen in _chosen(names or [], every, family or [])]
    if missing:
        work = [(chosen, earlier) for chosen, earlier in work if earlier is None or not earlier.describes(chosen)]
    results, broken = [], []
    with _progress() as bar:
        task = bar.add_task("")
        for place, (chosen, earlier) in enumerate(work, 1):
            bar.reset(task, total=seeds, description=f"{chosen.technique} ({place} of {len(work)})")
            try:
                results.append(_judge(chosen, earlier, first_seed, seeds, out, lambda: bar.advance(task)))
            except BrokenRunError as error:
                broken.append(str(error))
    if results or not broken:
        _print(results, as_json)
    if broken:
        raise BrokenRunError("; ".join(broken) + (f"; the others are recorded in {out}" if results else ""))
    if any(result.now.verdict == "fails" for result in results):
        raise typer.Exit(1)


# ---- a record, for readers ------------------------------------------------------------------------------------------


def summary(record: Record) -> dict[str, Any]:
    """A record as ``methods --json`` shows it: ``measured`` by quantity, over ``seeds`` seeds."""
    rule = {expect.quantity: expect for expect in record.rule}
    measured = {
        quantity: {
            "value": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "expected": rule[quantity].region if quantity in rule else None,
            "verdict": rule[quantity].verdict(estimate) if quantity in rule else None,
        }
        for quantity, estimate in record.estimates.items()
    }
    return {
        "verdict": record.verdict,
        "statement": record.statement,
        "measured": measured,
        "seeds": len(record.seeds),
        "seconds": record.seconds,
    }


def measured_rows(record: Record) -> Iterator[tuple[str, str, str]]:
    """By quantity: its name, ``0.43 [0.40, 0.46]``, and ``below 1: holds`` where the rule speaks of it; for a table."""
    for quantity, measured in summary(record)["measured"].items():
        value, low, high = (f"{measured[name]:.3g}" for name in ("value", "low", "high"))
        interval = f" [{low}, {high}]" if measured["low"] < measured["high"] else ""
        expected = f"{measured['expected']}: {measured['verdict']}" if measured["expected"] else ""
        yield escape(quantity), escape(value + interval), expected


# ---- the command ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Result:
    """A claim measured: the record of this measurement alone, and what is on record with it."""

    now: Record
    record: Record
    remarks: tuple[str, ...]


def _chosen(names: Sequence[str], every: bool, families: Sequence[str]) -> list[Claim]:
    if every == bool(names):
        raise InputError("claim needs the names of techniques or --all, and not both")
    if every:
        return claims.claims(families)
    if families:
        raise InputError(f"--family {families[0]}: goes with --all")
    return [claims.find_claim(name) for name in dict.fromkeys(names)]


def _progress() -> Progress:
    """A bar over the seeds of one claim, which goes away; nothing when nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _judge(
    chosen: Claim, earlier: Record | None, first_seed: int, seeds: int, out: Path, progress: Callable[[], None]
) -> _Result:
    command = f"stratagem claim {chosen.technique} --seeds {seeds} --first-seed {first_seed}"
    span = range(first_seed, first_seed + seeds)
    measurement = claims.run_claim(chosen, span, command=command, progress=progress)
    now = Record.of(chosen).adding(measurement)
    record = Record.of(chosen, earlier).adding(measurement)
    claims.write_record(record, out)
    changed = earlier is not None and not earlier.describes(chosen)
    return _Result(now, record, tuple(_remarks(now, record, changed)))


def _remarks(now: Record, record: Record, changed: bool) -> Iterator[str]:
    if changed:
        yield "the claim has changed, and what was measured of it before is dropped"
    if record.verdict != now.verdict:
        others = ", ".join(other.verdict for other in record.measurements[:-1])
        yield f"recorded as {record.verdict}: with other seeds the verdict was {others}"
    if now.seconds > claims.BUDGET:
        yield f"took {now.seconds:.0f} s; a claim may take {claims.BUDGET:.0f} s"


def _print(results: Sequence[_Result], as_json: bool) -> None:
    if as_json:
        entries = [
            {
                "name": result.now.technique,
                **summary(result.now),
                "recorded": result.record.verdict,
                "remarks": result.remarks,
            }
            for result in results
        ]
        print(json.dumps(entries, indent=2))
        return
    console = Console(highlight=False)
    table = Table("technique", "verdict", "measured", "mean", "expected", "seeds", "seconds", box=None, pad_edge=False)
    for result in results:
        cells = [result.now.technique, result.now.verdict, str(len(result.now.seeds)), f"{result.now.seconds:.1f}"]
        for row in measured_rows(result.now):
            table.add_row(*cells[:2], *row, *cells[2:])
            cells = [""] * len(cells)
    console.print(table if results else "nothing to measure")
    for result in results:
        for remark in result.remarks:
            console.print(f"{result.now.technique}: {remark}", markup=False)
