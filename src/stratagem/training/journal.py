"""The journal: episodes that have ended and that no checkpoint covers yet, so that a killed run plays none again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Rows of JSON data by batch, in a folder with a file for each.

    A row is written when it is known, and what a kill cut off in the middle is ignored. Several threads may write, each
    to the file of its own batch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rows(self, step: int) -> list[dict[str, Any]]:
        """What was written of batch ``step``, in its order."""
        path = self._path(step)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            with open(path, "r+b") as file:
                file.truncate(len(whole))
        return [json.loads(line) for line in whole.splitlines()]

    def write(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of batch ``step``."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        if lines:
            self._folder.mkdir(exist_ok=True)
            with open(self._path(step), "a", encoding="utf-8") as file:
                file.write(lines)

    def covered(self, step: int) -> None:
        """A checkpoint holds all there is to know of the batches before ``step``: their rows are forgotten."""
        for path in self._folder.glob("*.jsonl"):
            if int(path.stem) < step:
                path.unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self._folder / f"{step}.jsonl"
