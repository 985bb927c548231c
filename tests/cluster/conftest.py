"""Two processes of one group, for checks that both of them run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stratagem.cluster.process_group import Place

Check = Callable[[Place], Any]


class Failed(AssertionError):
    """What a shard raised, as its traceback."""


def _run(check: Check, place: Place, results: Any) -> None:
    torch.set_num_threads(1)
    try:
        said = True, check(place)
    except BaseException:
        said = False, traceback.format_exc()
    # Pickled plainly: tensors that were sent in shared memory would be gone with the process.
    results.send_bytes(pickle.dumps(said))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run_in_shards(check: Check, size: int = 2, timeout: float = 60.0) -> list[Any]:
    """What ``check`` returns in each process; None of one that ended without a word.

    They are forked, so that a check may be a function of the test, and begins with all that is imported.
    """
    context, port = multiprocessing.get_context("fork"), _free_port()
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe(duplex=False)
        place = Place(rank, size, "127.0.0.1", port, timeout=timeout)
        process = context.Process(target=_run, args=(check, place, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        deadline = time.monotonic() + timeout + 60
        said = [_received(pipe, deadline) for pipe in pipes]
    finally:
        for process in processes:
            process.join(timeout=1)
            process.kill()
            process.join()
    broken = [result for result in said if result is not None and not result[0]]
    if broken:
        raise Failed("\n".join(text for _, text in broken))
    return [None if result is None else result[1] for result in said]


def _received(pipe: Any, deadline: float) -> tuple[bool, Any] | None:
    if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise Failed("a shard neither ended nor broke")
    try:
        result: tuple[bool, Any] = pickle.loads(pipe.recv_bytes())
    except EOFError:
        return None
    return result


@pytest.fixture(scope="session")
def in_shards() -> Callable[..., list[Any]]:
    """``in_shards(check, size=2, timeout=60)``: what ``check(place)`` returns in each process of a group."""
    # After a fork it would warn that it was used before.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return run_in_shards


@pytest.fixture
def free_port() -> Callable[[], int]:
    """``free_port()``: one on which nobody listens."""
    return _free_port
