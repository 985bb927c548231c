"""Calls that raise or hang cost themselves and no other."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from stratagem.language.watched import Outcome, Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch(timeout=0.1)
    yield made
    made.close()


@pytest.fixture
def hang() -> Iterator[object]:
    """A call that comes back only when the test is over."""
    over = threading.Event()
    yield lambda: over.wait(10)
    over.set()


def test_outcomes_come_in_order(watch):
    assert watch.run([lambda n=n: n * n for n in range(100)]) == [Outcome(n * n) for n in range(100)]
    assert watch.run([]) == []


def test_a_call_that_raises_is_a_failure_with_its_words(watch):
    def fall() -> None:
        raise OSError("no such simulator")

    assert watch.run([lambda: 1, fall, lambda: 3]) == [
        Outcome(1),
        Outcome(failure="OSError: no such simulator"),
        Outcome(3),
    ]


def test_a_call_that_ends_the_program_is_a_failure_like_any_other():
    watch = Watch(timeout=30)
    assert watch.run([lambda: sys.exit(3), lambda: 2]) == [Outcome(failure="SystemExit: 3"), Outcome(2)]
    assert watch.abandoned == 0
    watch.close()


def test_a_call_that_hangs_is_given_up_and_the_next_ones_go_on(watch, hang):
    outcomes = watch.run([lambda: 1, hang, lambda: 3, hang, lambda: 5])
    assert [outcome.value for outcome in outcomes] == [1, None, 3, None, 5]
    assert [outcome.hung for outcome in outcomes] == [False, True, False, True, False]
    assert outcomes[1].failure == "no answer within 0.1 s"
    assert watch.abandoned == 2
    assert watch.run([lambda: 6]) == [Outcome(6)]


def test_what_an_abandoned_call_does_later_is_not_heard():
    watch, over = Watch(timeout=0.05), threading.Event()

    def late() -> str:
        over.wait(10)
        return "too late"

    first = watch.run([late])
    over.set()
    assert watch.run([lambda: "in time"] * 3) == [Outcome("in time")] * 3
    assert first == [Outcome(failure="no answer within 0.05 s", hung=True)]
    watch.close()


def test_many_calls_may_together_take_longer_than_one_may():
    watch = Watch(timeout=0.4)
    assert watch.run([lambda: time.sleep(0.1)] * 6) == [Outcome(None)] * 6
    assert watch.abandoned == 0
    watch.close()


def test_the_worker_ends_with_its_watch():
    watch = Watch(timeout=1.0)
    watch.run([lambda: None])
    workers = [thread for thread in threading.enumerate() if thread.name == "stratagem-environments"]
    watch.close()
    deadline = time.perf_counter() + 5
    while all(worker.is_alive() for worker in workers) and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert not all(worker.is_alive() for worker in workers)


def test_threads_do_not_wait_for_the_calls_of_each_other(watch):
    """A slow call of one thread lets no call of another time out."""
    over, found = threading.Event(), list[Outcome[int]]()
    slow = threading.Thread(target=lambda: watch.run([lambda: over.wait(0.08)] * 6))
    slow.start()
    while slow.is_alive():
        found += watch.run([lambda: 1])
        time.sleep(0.02)
    slow.join(10)
    assert len(found) > 1 and set(found) == {Outcome(1)}
    assert watch.abandoned == 0
