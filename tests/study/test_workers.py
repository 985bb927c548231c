"""Calls in processes of their own: what they return, how they fail, and that none outlives who asked for it."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from stratagem import catalogue
from stratagem.errors import BrokenRunError, InputError
from stratagem.study.workers import Call, run_apart


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "log.txt"


def test_each_call_is_made_once_and_reported_by_number(tmp_path: Path, log: Path) -> None:
    calls = [Call((tmp_path / str(number)).write_text, (f"{number}",), log) for number in range(5)]
    ended = list(run_apart(calls, jobs=2))
    assert sorted(end.call for end in ended) == [0, 1, 2, 3, 4]
    assert all(end.error is None for end in ended)
    assert [(tmp_path / str(number)).read_text() for number in range(5)] == ["0", "1", "2", "3", "4"]


def test_a_process_is_fresh_for_every_call(log: Path) -> None:
    list(run_apart([Call(print, ("hello",), log)] * 2, jobs=1))
    assert log.read_text() == "hello\nhello\n"


def test_wrong_input_keeps_its_kind_and_words(log: Path) -> None:
    [ended] = run_apart([Call(catalogue.card, ("grpp",), log)], jobs=1)
    assert isinstance(ended.error, InputError) and "did you mean 'grpo'" in str(ended.error).lower()


def test_any_other_error_breaks_the_call_and_leaves_its_traceback_in_the_log(tmp_path: Path, log: Path) -> None:
    calls = [Call(operator.truediv, (1, 0), log), Call((tmp_path / "next").touch, (), log)]
    first, second = run_apart(calls, jobs=1)
    assert isinstance(first.error, BrokenRunError) and "ZeroDivisionError: division by zero" in str(first.error)
    assert str(log) in str(first.error) and "Traceback" in log.read_text()
    assert second.error is None and (tmp_path / "next").exists(), "one broken call does not keep others from going on"


def test_a_process_that_is_killed_is_named_by_the_signal(log: Path) -> None:
    [ended] = run_apart([Call(os.abort, (), log)], jobs=1)
    assert isinstance(ended.error, BrokenRunError) and "SIGABRT" in str(ended.error)


def test_who_stops_asking_leaves_no_process_behind(tmp_path: Path, log: Path) -> None:
    calls = [Call((tmp_path / "done").touch, (), log), Call(time.sleep, (60,), log)]
    began = time.monotonic()
    with closing(run_apart(calls, jobs=2)) as endings:
        assert next(endings).call == 0
    assert time.monotonic() - began < 30


def test_processes_stop_when_the_one_that_started_them_is_killed(tmp_path: Path, log: Path) -> None:
    script = f"""
import time
from pathlib import Path
from stratagem.study.workers import Call, run_apart
if __name__ == "__main__":
    list(run_apart([Call(time.sleep, (61.5,), Path({str(log)!r}))], jobs=1))
"""
    (tmp_path / "asks.py").write_text(script)
    asking = subprocess.Popen([sys.executable, tmp_path / "asks.py"])
    try:
        assert within(30, lambda: log.exists() and children(asking.pid)), "the call was never made"
        workers = children(asking.pid)
    finally:
        os.kill(asking.pid, signal.SIGKILL)
        asking.wait()
    assert within(20, lambda: not any(running(worker) for worker in workers)), "a worker outlived who started it"


def within(seconds: float, condition: object) -> bool:
    """Whether the condition came true in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def children(process: int) -> list[int]:
    """All descendants of a process."""
    direct = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return direct + [pid for child in direct for pid in children(child)]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
