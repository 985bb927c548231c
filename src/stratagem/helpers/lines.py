"""Lines that several processes append to one file: each whole, after whatever a killed one left behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

_SECONDS = 60


def line_lock(path: Path) -> FileLock:
    """The lock of a file of lines, ``PATH.lock`` beside it."""
    return FileLock(f"{path}.lock", timeout=_SECONDS)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines, each with its end, under :func:`line_lock` held by the caller. The file must exist."""
    if not lines:
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            # What a killed process left behind becomes a line of its own.
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())
