"""The file of results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.scenarios import SCENARIOS

from stratagem.training.run_directory import machine


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that a file holds; none where there is no file."""
    return list(json.loads(path.read_text(encoding="utf-8"))["runs"]) if path.is_file() else []


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, of several of the same scenario and seed the last, with the machine.

    Each row has the commit that it was made at, since some may be older than others.
    """
    order = {name: place for place, name in enumerate(SCENARIOS)}
    newest = {(row["scenario"], row["seed"]): row for row in rows if row["scenario"] in order}
    runs = sorted(newest.values(), key=lambda row: (order[row["scenario"]], row["seed"]))
    host = {name: value for name, value in machine().items() if name != "commit"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**host, "runs": runs}, indent=2) + "\n", encoding="utf-8")
