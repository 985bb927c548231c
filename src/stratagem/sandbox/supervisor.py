"""One process and all that it starts, watched from outside: its time, memory, processes and output are bounded."""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from stratagem.errors import InputError

Limit = Literal["time", "memory", "processes", "output"]
"""What a program was stopped for."""

MARK = "STRATAGEM_SANDBOX"
"""Environment variable by which a program's processes are found again where no namespace holds them together."""

_TICK = 0.01
_CHUNK = 65_536
_SWEEPS = 100
_FORKS_COUNTED_APART = (5, 14)


@dataclass(frozen=True)
class Limits:
    """What a program may use, all that it starts included.

    ``seconds``: time on the clock, above 0.  ``memory_bytes``: address space of each process, and what all of them
    together hold, at least 32 MiB.  ``processes``: processes and threads at a time, at least 1.  ``output_bytes``: what
    is kept of standard output and error together, at least 1.  ``file_bytes``: what it may write into files, at least
    0: all together in bubblewrap, each file without it.

    Beyond ``file_bytes`` a write fails in the program (``OSError``); beyond the other limits it is killed.

    Raises :class:`InputError` for a value out of range.
    """

    seconds: float = 5.0
    memory_bytes: int = 256 * 2**20
    processes: int = 8
    output_bytes: int = 64 * 2**10
    file_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        least = {"seconds": 1e-3, "memory_bytes": 32 * 2**20, "processes": 1, "output_bytes": 1, "file_bytes": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if not (least[field.name] <= value < math.inf):
                raise InputError(f"limits: {field.name}={value!r} is not allowed; it is at least {least[field.name]:g}")


@dataclass(frozen=True)
class Result:
    """How a program ended.

    ``stdout``, ``stderr``: what it wrote, as far as it is kept; bytes that are no UTF-8 are replaced.  ``status``: its
    exit status, 128 + N for one that signal N ended; None when it was stopped.  ``limit``: what it was stopped for, or
    None; ``"memory"`` also when it ended by a ``MemoryError`` of its own.  ``seconds``: how long it took.
    """

    stdout: str
    stderr: str
    status: int | None
    limit: Limit | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.status == 0 and self.limit is None


def supervise(
    command: Sequence[str], stdin: bytes, limits: Limits, folder: Path, environment: Mapping[str, str], helpers: int = 0
) -> Result:
    """Run ``command`` in ``folder`` with no other variables than ``environment`` until it ends or exceeds a limit.

    ``helpers``: processes of the command that are not the program's and do not count. Everything that is left of it is
    killed before this returns: its session, and what carries the value of ``MARK`` in its environment.
    """
    started = time.monotonic()
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environment, start_new_session=True
    )
    watch = _Watch(process, stdin, limits, started + limits.seconds, helpers)
    with ExitStack() as after:
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            after.enter_context(stream)
        try:
            limit = watch.until_done()
        finally:
            _end(process, environment.get(MARK))
        drained = watch.drain()
        limit = limit or drained
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    stdout, stderr = (bytes(text).decode(errors="replace") for text in watch.texts)
    return Result(stdout, stderr, None if limit else status, limit, time.monotonic() - started)


def forks_are_counted_apart() -> bool:
    """Whether the kernel counts the processes of a user namespace on their own, so that they can be limited (5.14)."""
    version = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(part) for part in version if part.isdigit()) >= _FORKS_COUNTED_APART


def family(root: int) -> Iterator[Path]:
    """The folders in ``/proc`` of a process and of all its descendants, parents first."""
    waiting = [Path(f"/proc/{root}")]
    while waiting:
        folder = waiting.pop()
        yield folder
        with suppress(OSError):
            for task in os.listdir(folder / "task"):
                children = (folder / "task" / task / "children").read_text().split()
                waiting += [Path("/proc", child) for child in children]


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of ours and all its descendants, and take its exit status."""
    for folder in list(family(process.pid)) if process.poll() is None else []:
        with suppress(OSError):
            os.kill(int(folder.name), signal.SIGKILL)
    process.wait()


class _Watch:
    """Feeds a process, keeps what it writes and looks how much of everything it uses."""

    def __init__(
        self, process: subprocess.Popen[bytes], stdin: bytes, limits: Limits, deadline: float, helpers: int
    ) -> None:
        self.process = process
        self.limits = limits
        self.deadline = deadline
        self.helpers = helpers
        self.texts = (bytearray(), bytearray())
        self._unsent = memoryview(stdin)

    def until_done(self) -> Limit | None:
        """Return when the process has ended, or as soon as a limit is exceeded, which it names."""
        with ExitStack() as after:
            selector = after.enter_context(selectors.DefaultSelector())
            self._register(selector, after)
            looked = 0.0
            while self.process.poll() is None:
                now = time.monotonic()
                if now >= self.deadline:
                    return "time"
                if now >= looked + _TICK:
                    if over := self._over():
                        return over
                    looked = now
                for key, _ in selector.select(min(_TICK, self.deadline - now)):
                    if not self._serve(key):
                        selector.unregister(key.fileobj)
                if self._too_much():
                    return "output"
        return None

    def drain(self) -> Limit | None:
        """Take what a process that has ended left in its pipes."""
        for number in (0, 1):
            stream = (self.process.stdout, self.process.stderr)[number]
            assert stream is not None
            while not self._too_much() and self._read(stream.fileno(), number):
                pass
        excess = sum(map(len, self.texts)) - self.limits.output_bytes
        if excess <= 0:
            return None
        for text in reversed(self.texts):
            kept = max(len(text) - excess, 0)
            excess -= len(text) - kept
            del text[kept:]
        return "output"

    def _register(self, selector: selectors.BaseSelector, after: ExitStack) -> None:
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None and stdout is not None and stderr is not None
        for stream in (stdin, stdout, stderr):
            os.set_blocking(stream.fileno(), False)
        if self._unsent:
            selector.register(stdin, selectors.EVENT_WRITE, "stdin")
        else:
            stdin.close()
        selector.register(stdout, selectors.EVENT_READ, 0)
        selector.register(stderr, selectors.EVENT_READ, 1)
        with suppress(OSError, AttributeError):  # its end wakes us at once; elsewhere at the next tick
            ended = os.pidfd_open(self.process.pid)
            after.callback(os.close, ended)
            selector.register(ended, selectors.EVENT_READ, "end")

    def _serve(self, key: selectors.SelectorKey) -> bool:
        """Whether there may be more to do for this stream."""
        if key.data == "end":
            return True
        if key.data == "stdin":
            return self._write()
        return self._read(key.fd, key.data)

    def _write(self) -> bool:
        stdin = self.process.stdin
        assert stdin is not None
        with suppress(BlockingIOError):
            try:
                self._unsent = self._unsent[os.write(stdin.fileno(), self._unsent[:_CHUNK]) :]
            except BrokenPipeError:
                return False
        if not self._unsent:
            stdin.close()
        return bool(self._unsent)

    def _read(self, descriptor: int, number: int) -> bool:
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        self.texts[number].extend(chunk)
        return bool(chunk)

    def _too_much(self) -> bool:
        return sum(map(len, self.texts)) > self.limits.output_bytes

    def _over(self) -> Limit | None:
        tasks, memory = _usage(self.process.pid)
        if tasks - self.helpers > self.limits.processes:
            return "processes"
        return "memory" if memory > self.limits.memory_bytes else None


def _usage(root: int) -> tuple[int, int]:
    """Threads of a process and of all its descendants, and the bytes they hold beside files they have mapped.

    Memory that a fork still shares with its parent counts in both. Where ``/proc`` does not tell, 0.
    """
    tasks, kilobytes = 0, 0
    for folder in family(root):
        with suppress(OSError):
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            tasks += int(status["Threads"])
            kilobytes += sum(int(status.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem"))
    return tasks, kilobytes * 1024


def _end(process: subprocess.Popen[bytes], mark: str | None) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(_SWEEPS if mark else 0):
        if not _killed(f"{MARK}={mark}".encode()):
            return


def _killed(mark: bytes) -> int:
    """Kill every process that carries ``mark`` in its environment, and say how many there were."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)
                found += 1
    return found
