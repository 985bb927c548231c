"""What the lab found, as a file: ``results/lab/TECHNIQUE.json``, and what ``stratagem lab --json`` prints."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from stratagem.lab.diagnosis import Diagnosis
from stratagem.recorded import read_recorded

VERSION = 1
"""Of the file format; a file of another version is refused."""


@dataclass(frozen=True)
class LabRecord:
    """Diagnoses of some recipes, and the games they were made in. games: description by name."""

    games: dict[str, str]
    diagnoses: tuple[Diagnosis, ...]
    version: int = VERSION

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_lab_record(path: Path) -> LabRecord | None:
    """Read a record; None when there is no such file.

    Raises :class:`InputError` when it is broken or of another version.
    """
    return read_recorded(path, LabRecord, VERSION, "the record of the lab")
