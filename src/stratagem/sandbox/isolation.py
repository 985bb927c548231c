"""How a program is kept apart from this machine: bubblewrap where it works, else a limited process that says so."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from stratagem.sandbox import launch
from stratagem.sandbox.supervisor import MARK, Limits, Result, forks_are_counted_apart, supervise

Isolation = Literal["bubblewrap", "process"]

_DEFAULT = Limits()
_HELPERS = 2
"""Processes of bubblewrap itself: the one outside, and the first one of the namespace."""

_PROGRAM = "main.py"
_OPEN_FILES = 64
_ROOT = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True)
class Sandbox:
    """Where a policy's programs run.

    ``isolation``: ``"bubblewrap"`` has no network, sees no process and no file but a read-only system and Python
    installation, and writes to a private ``/tmp`` that ends with it. ``"process"`` bounds what a program uses and
    cleans up after it, and is **no security boundary**: the program can read and write what you can, and reach the
    network.

    ``reason``: why it is not bubblewrap; empty when it is.
    """

    isolation: Isolation
    reason: str = ""

    def __str__(self) -> str:
        if self.isolation == "bubblewrap":
            return "bubblewrap: no network, read-only system, private files"
        return f"limited process, no security boundary ({self.reason})"

    def run_python(self, code: str, stdin: str = "", limits: Limits = _DEFAULT) -> Result:
        """Run a Python program and return how it ended.

        It sees the standard library and no other package, an environment of our own in which the hashes of strings are
        always the same, and an empty folder to work in. No shell is involved. Whatever it does, this returns within
        ``limits.seconds`` and the moment that killing takes.
        """
        self._warn()
        with _folder() as folder:
            (folder / _PROGRAM).write_text(code, "utf-8", errors="replace", newline="")
            bounds = self._bounds(limits)
            if self.isolation == "bubblewrap":
                command = confined(
                    Path(launch.__file__),
                    [_PROGRAM, *bounds],
                    limits.file_bytes,
                    ["--die-with-parent"],
                    folder / _PROGRAM,
                )
                environment, helpers = _environment("/tmp"), _HELPERS
            else:
                command = [*interpreter(), launch.__file__, _PROGRAM, *bounds]
                environment, helpers = {**_environment(str(folder)), MARK: secrets.token_hex(8)}, 0
            result = supervise(command, stdin.encode(errors="replace"), limits, folder, environment, helpers)
        if result.status == launch.OUT_OF_MEMORY:
            result = replace(result, limit="memory")
        return result

    def start(self, script: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a Python script of our own that answers lines, kept apart as a policy's program is.

        It imports the standard library only and ends when its standard input does. The caller bounds its time.
        """
        environment = _environment("/tmp")
        if self.isolation == "bubblewrap":
            command = confined(script, arguments, _DEFAULT.file_bytes, [])
        else:
            command = [*interpreter(), str(script), *arguments]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )

    def _bounds(self, limits: Limits) -> list[str]:
        bounds = {
            "AS": limits.memory_bytes,
            "CPU": (int(limits.seconds) + 1) * limits.processes,
            "FSIZE": limits.file_bytes,
            "NOFILE": _OPEN_FILES,
            "CORE": 0,
        }
        if self.isolation == "bubblewrap" and forks_are_counted_apart():
            # One more than is allowed, so that the supervisor can see that it was too many.
            bounds["NPROC"] = limits.processes + _HELPERS
        return [f"{name}={value}" for name, value in bounds.items()]

    def _warn(self) -> None:
        if self.isolation == "process":
            _warn_once(self.reason)


@cache
def sandbox() -> Sandbox:
    """The best sandbox of this machine, found out once by trying it."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return Sandbox("process", "bwrap is not installed")
    result = Sandbox("bubblewrap").run_python("print('ready')", limits=Limits(seconds=30))
    if result.stdout == "ready\n":
        return Sandbox("bubblewrap")
    said = " ".join(result.stderr.split())[:200] or f"it ended with status {result.status}"
    return Sandbox("process", f"{bwrap} does not work here: {said}")


def run_python(code: str, stdin: str = "", limits: Limits = _DEFAULT) -> Result:
    """Run a Python program in the :func:`sandbox` of this machine; see :meth:`Sandbox.run_python`."""
    return sandbox().run_python(code, stdin, limits)


def interpreter() -> list[str]:
    """This Python without site packages and with nothing of the current folder in its path.

    Not ``-I``, which would ignore the fixed hash seed; the environment is our own anyway.
    """
    return [os.path.realpath(sys.executable), "-P", "-s", "-S"]


def confined(
    script: Path, arguments: Sequence[str], file_bytes: int, options: Sequence[str], program: Path | None = None
) -> list[str]:
    """The command that runs ``script`` in bubblewrap (0.8 or newer), with ``program`` in its working folder."""
    command = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--uid",
        "65534",
        "--gid",
        "65534",
    ]
    command += ["--cap-drop", "ALL", "--new-session", "--hostname", "sandbox", *options]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(max(file_bytes, 1)), "--tmpfs", "/tmp"]
    for folder in _system():
        command += (
            ["--symlink", os.readlink(folder), folder] if os.path.islink(folder) else ["--ro-bind", folder, folder]
        )
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if program is not None:
        command += ["--ro-bind", str(program), f"/tmp/{program.name}"]
    inside = f"/run/{script.name}"
    command += ["--ro-bind", str(script), inside, "--remount-ro", "/", "--chdir", "/tmp"]
    return [*command, "--", *interpreter(), inside, *arguments]


@cache
def _system() -> list[str]:
    """What a Python needs of this machine, each folder of it before those that lie in it."""
    folders = ["/usr", *(f"/{name}" for name in _ROOT if os.path.lexists(f"/{name}"))]
    for own in (os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)):
        if not any(own == folder or own.startswith(f"{folder}/") for folder in folders):
            folders.append(own)
    return folders


def _environment(home: str) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that is gone afterwards, whatever a program made of it."""
    folder = tempfile.mkdtemp(prefix="stratagem-sandbox-")
    try:
        yield Path(folder)
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError):  # folders without permissions, or nested by the thousand
            subprocess.run(["chmod", "-R", "u+rwx", folder], capture_output=True)
            subprocess.run(["rm", "-rf", folder], capture_output=True)


@cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"programs a policy writes run in a limited process, which is no security boundary ({reason}); "
        "install bubblewrap 0.8 or newer to keep them apart",
        stacklevel=3,
    )
