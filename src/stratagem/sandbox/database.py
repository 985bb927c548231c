"""A policy's query over a generated SQLite database: it can read, and nothing else, in a process that can be killed.

SQLite asks its progress handler between two instructions of its machine, and one instruction can call a function that
takes minutes: ``instr`` on strings of four and two megabytes did not hear of a limit of 0.3 seconds for 88. Hence the
process, which also contains what a query does to memory.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import re
import selectors
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stratagem.errors import InputError
from stratagem.sandbox import query_worker
from stratagem.sandbox.isolation import sandbox
from stratagem.sandbox.supervisor import kill_family

_GRACE_SECONDS = 0.5
_START_SECONDS = 30.0
_CHUNK = 65_536
_SELECT = re.compile(r"(select|with|values)\b", re.IGNORECASE)


class QueryError(ValueError):
    """A query that cannot be carried out, with a short reason."""


@dataclass(frozen=True)
class QueryLimits:
    """What a query may use.

    ``seconds``: time on the clock, above 0.  ``rows``: rows that are read, at least 1.  ``characters``: of all values
    that are read, at least 1.  ``memory_bytes``: address space of the process that runs it, at least 64 MiB.

    Raises :class:`InputError` for a value out of range.
    """

    seconds: float = 1.0
    rows: int = 100
    characters: int = 20_000
    memory_bytes: int = 128 * 2**20

    def __post_init__(self) -> None:
        least = {"seconds": 1e-3, "rows": 1, "characters": 1, "memory_bytes": 64 * 2**20}
        for field in fields(self):
            value = getattr(self, field.name)
            if not (least[field.name] <= value < math.inf):
                raise InputError(
                    f"query limits: {field.name}={value!r} is not allowed; it is at least {least[field.name]:g}"
                )


@dataclass(frozen=True)
class Rows:
    """What a query found.

    ``columns``: their names.  ``rows``: one tuple of numbers, strings and None each; a blob is its SQL literal.
    ``more``: whether rows beyond a limit were left out.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]
    more: bool = False


_DEFAULT = QueryLimits()


def read_query(text: str) -> str:
    """The one query that ``text`` holds, without the semicolon behind it. Nothing is executed.

    Raises :class:`QueryError` when there is none, or it begins with none of SELECT, WITH and VALUES.
    """
    query = text.strip().removesuffix(";").rstrip()
    if not query:
        raise QueryError("no query")
    if not _SELECT.match(query):
        raise QueryError("only SELECT")
    if "\0" in query:
        raise QueryError("a query holds no null character")
    return query


def run_query(script: str, query: str, limits: QueryLimits = _DEFAULT) -> Rows:
    """The rows of ``query`` over the database that the SQL of ``script`` makes, in memory and anew for each call.

    ``script`` is trusted, ``query`` is not: an authorizer lets it read and call functions of their arguments alone. No
    other statement, no pragma, no file, no extension; ``random()`` and the clock are refused too, so that equal
    queries have equal rows. The process that runs it is kept apart by the :func:`~stratagem.sandbox.isolation.sandbox`
    of this machine, serves further queries, and is killed and replaced when one does not end in time.

    Raises :class:`QueryError` with SQLite's reason, or ``took too long``, ``out of memory``, ``not authorized``;
    :class:`InputError` when the script is wrong.
    """
    worker = _worker(limits.memory_bytes)
    request = {"script": script, "query": query, "seconds": limits.seconds, "rows": limits.rows}
    try:
        reply = worker.ask({**request, "characters": limits.characters}, limits.seconds + _GRACE_SECONDS)
    except BaseException:
        worker.close()
        raise
    _idle(limits.memory_bytes).append(worker)
    if "fault" in reply:
        raise InputError(f"the script of a database: {reply['fault']}")
    if "error" in reply:
        raise QueryError(" ".join(reply["error"].split()))
    return Rows(tuple(reply["columns"]), tuple(map(tuple, reply["rows"])), reply["more"])


class _Worker:
    """One process that runs queries, one at a time."""

    def __init__(self, memory_bytes: int) -> None:
        self._process = sandbox().start(Path(query_worker.__file__), [str(memory_bytes)])
        self._ready = False

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a request. Raises :class:`QueryError` when it does not come in time, or the process died."""
        if not self._ready:
            self._exchange(
                {"script": "", "query": "select 1", "seconds": 10, "rows": 1, "characters": 9}, _START_SECONDS
            )
            self._ready = True
        return self._exchange(request, seconds)

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process, and by its own number the one that a sandbox keeps in it."""
        kill_family(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def _exchange(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise QueryError("the process that ran the query died") from None
        reply: dict[str, Any] = json.loads(self._line(time.monotonic() + seconds))
        return reply

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise QueryError("took too long")
                chunk = os.read(self._process.stdout.fileno(), _CHUNK)
                if not chunk:
                    raise QueryError("the process that ran the query died")
                received += chunk
        return received


_IDLE: dict[tuple[int, int], deque[_Worker]] = {}
"""Workers that nobody is using, by the process that started them and their memory."""


def _idle(memory_bytes: int) -> deque[_Worker]:
    return _IDLE.setdefault((os.getpid(), memory_bytes), deque())


def _worker(memory_bytes: int) -> _Worker:
    """An idle worker or a new one: each thread that is running a query has one of its own."""
    while idle := _idle(memory_bytes):
        with suppress(IndexError):  # another thread was faster
            worker = idle.pop()
            if worker.alive():
                return worker
            worker.close()
    return _Worker(memory_bytes)


@atexit.register
def _close_all() -> None:
    for (owner, _), idle in _IDLE.items():
        while idle and owner == os.getpid():
            idle.pop().close()
