"""Small file systems that can be filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class NotHere(Exception):
    """This machine does not let the scenario happen."""


@dataclass(frozen=True)
class Volume:
    """A file system at ``path``."""

    path: Path

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        found = os.statvfs(self.path)
        with open(self.path / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(found.f_bavail * found.f_frsize - leave, 1))

    def empty(self) -> None:
        """Give back what :meth:`fill` took."""
        (self.path / "filler").unlink()


@contextmanager
def volume(path: Path, megabytes: int) -> Iterator[Volume]:
    """A file system in memory at ``path``, gone with the block. Raises :class:`NotHere` without the right to mount."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(path)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        raise NotHere("only root may mount a file system")
    try:
        yield Volume(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
