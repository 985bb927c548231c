"""Calls in processes of their own, a few at a time, that stop when whoever started them is gone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from stratagem.errors import BrokenRunError, InputError

PRELOADED = ["stratagem.run"]
"""Imported once, in the process all others are forked from: torch alone takes seconds."""


@dataclass(frozen=True)
class Call:
    """``function(*arguments)`` on ``threads`` threads, with what it prints going to the file ``log``.

    The function is one of a module, and its arguments can be pickled.
    """

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path
    threads: int = 1


@dataclass(frozen=True)
class Ended:
    """How call number ``call`` ended: ``error`` is None when it returned."""

    call: int
    error: InputError | BrokenRunError | None


def run_apart(calls: Sequence[Call], jobs: int) -> Generator[Ended, None, None]:
    """Run every call in a fresh process, ``jobs`` side by side, in order; yields each as it ends.

    A fresh process has its own peak memory, its own threads and its own crash. When the caller is interrupted, or
    simply stops asking, the processes are told to stop (SIGTERM, on which a run saves) and waited for. When the caller
    is killed they notice and stop by themselves.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting = list(enumerate(calls))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, call = waiting.pop()
                said, says = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(call, says), daemon=False)
                process.start()
                says.close()
                running[said] = number, process
            ready = wait(list(running))
            for said in [connection for connection in running if connection in ready]:
                number, process = running.pop(said)
                yield Ended(number, _outcome(said, process))
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _outcome(said: Connection, process: Any) -> InputError | BrokenRunError | None:
    try:
        outcome: InputError | BrokenRunError | None = said.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        cause = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return BrokenRunError(f"the process was ended by {cause}")
    process.join()
    return outcome


def _work(call: Call, says: Connection) -> None:
    """In the child: make the call, and say how it went."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    call.log.parent.mkdir(parents=True, exist_ok=True)
    with open(call.log, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    outcome: InputError | BrokenRunError | None = None
    try:
        import torch

        torch.set_num_threads(call.threads)
        logging.captureWarnings(True)
        call.function(*call.arguments)
    except (InputError, BrokenRunError) as error:
        outcome = error
    except BaseException as error:
        traceback.print_exc()
        outcome = BrokenRunError(f"{type(error).__name__}: {error}; {call.log} has the traceback")
    with suppress(BrokenPipeError):
        says.send(outcome)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
