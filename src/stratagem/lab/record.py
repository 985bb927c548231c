"""What the lab found, as a file: ``results/lab/TECHNIQUE.json``, and what ``stratagem lab --json`` prints."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from stratagem.errors import InputError
from stratagem.lab.diagnosis import Diagnosis

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
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: is not what stratagem lab writes (not valid JSON)") from None
    version = plain.get("version") if isinstance(plain, dict) else None
    if version != VERSION:
        raise InputError(f"{path}: is of version {version}; this is Stratagem's version {VERSION} of the format")
    try:
        return TypeAdapter(LabRecord).validate_python(plain)
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
