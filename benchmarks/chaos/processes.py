"""The processes of a run under /proc: found by the names Ray gives them, killed, stopped and waited for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def children(root: int) -> list[int]:
    """All processes that descend from this one, itself not among them."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        waiting += (more := parents.get(waiting.pop(), []))
        found += more
    return found


def title(pid: int) -> str:
    """What a process calls itself; empty when it is gone."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def actors(root: int, kind: str) -> list[int]:
    """Ray actors of this class below a process, oldest first: Ray writes its name in their titles."""
    return sorted(pid for pid in children(root) if title(pid).startswith(f"ray::{kind}"))


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those of them that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Helpers of Ray's nodes: when these are killed they try for a minute to report that, and only then end."""


def check_gone(pids: list[int], seconds: float = 20.0) -> None:
    """Wait until all are gone by themselves. Raises :class:`Leftover`, and kills them, when one is still there."""
    end = time.monotonic() + seconds
    while (left := _working(pids)) and time.monotonic() < end:
        time.sleep(0.1)
    if left:
        names = ", ".join(sorted({title(pid)[:60] for pid in left}))
        send(left, signal.SIGKILL)
        raise Leftover(f"{len(left)} processes were left behind: {names}")


def _working(pids: list[int]) -> list[int]:
    return [pid for pid in pids if (name := title(pid)) and not name.startswith(AGENTS)]


class Leftover(Exception):
    """A run ended, and processes that it started did not."""


def await_exit(pids: list[int], seconds: float = 20.0) -> None:
    """Wait until all are gone, and kill those that are not."""
    end = time.monotonic() + seconds
    while any(title(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    send(pids, signal.SIGKILL)
