"""The audit log: one line of JSON for everything an agent decided or did."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stratagem.errors import InputError

Entry = Mapping[str, Any]


class AuditLog:
    """Entries of a run, kept and, with a path, written line by line as they come.

    Every entry has its number ``n``, what it is (``entry``), and the blueprint's hash; with a clock also ``at``, in
    seconds since the log began. Without one, two runs that did the same have the same log. A file that is there is
    added to, never overwritten.

    Raises :class:`InputError` when the file cannot be written.
    """

    def __init__(
        self, blueprint: str, path: str | Path | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self.entries: list[dict[str, Any]] = []
        self._blueprint, self._clock = blueprint, clock
        self._begun = clock() if clock is not None else 0.0
        self._path = None if path is None else Path(path)
        self._append("")

    def write(self, entry: str, **facts: Any) -> None:
        """Add an entry, in the file before what it tells of goes on."""
        row: dict[str, Any] = {"n": len(self.entries), "entry": entry, "blueprint": self._blueprint}
        if self._clock is not None:
            row["at"] = self._clock() - self._begun
        row |= facts
        self.entries.append(row)
        self._append(json.dumps(row, allow_nan=False) + "\n")

    def _append(self, text: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise InputError(f"audit log {self._path}: cannot be written ({type(error).__name__})") from None


def read_audit(path: str | Path) -> list[dict[str, Any]]:
    """The entries of a file. Raises :class:`InputError` naming the first line that is none."""
    entries = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"audit log {path}: cannot be read ({type(error).__name__})") from None
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "entry" not in entry:
            raise InputError(f"audit log {path}, line {number}: no entry")
        entries.append(entry)
    return entries


def untimed(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The entries without their times: what two runs that did the same have in common."""
    return [{name: value for name, value in entry.items() if name != "at"} for entry in entries]
