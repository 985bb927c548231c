"""The table of what runs on a cluster came to while something failed, as ``benchmarks.chaos`` recorded it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from stratagem.errors import InputError

PLACE = "<!-- chaos table -->"
"""The line of a page that the table takes the place of."""


def chaos_table(path: Path) -> str:
    """A row for each scenario, in Markdown. Raises :class:`InputError` for a file that is missing or broken."""
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        runs: Sequence[Mapping[str, Any]] = recorded["runs"]
        rows = [_row(list(mine)) for _, mine in groupby(runs, key=lambda run: run["scenario"])]
        cores = recorded["cores"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no recorded chaos ({type(error).__name__}: {error})") from None
    head = "| what happens | runs | outcome | started again | failed episodes | violations | seconds |"
    caption = f"`python -m benchmarks.chaos --out {path.parent.name}/{path.name}`, on {cores} cores."
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows, "", caption])


def _row(runs: Sequence[Mapping[str, Any]]) -> str:
    outcomes = [run["outcome"] for run in runs]
    counted = [f"{name} ({outcomes.count(name)})" for name in dict.fromkeys(outcomes)]
    cells = [
        runs[0]["description"],
        str(len(runs)),
        outcomes[0] if len(counted) == 1 else ", ".join(counted),
        *(_span([run[name] for run in runs]) for name in ("restarts", "failed_episodes", "violations")),
        _span([round(run["seconds"]) for run in runs]),
    ]
    return f"| {' | '.join(cells)} |"


def _span(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"
