"""Calls that raise or hang cost themselves and no other."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from stratagem.errors import BrokenRunError, InputError
from stratagem.watched import CallFailed, Outcome, Watch, failure_of, timed_elsewhere


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


# ---- several threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("calls", [0, 1, 2, 7, 50])
def test_outcomes_of_several_threads_come_in_order(threads, calls):
    watch = Watch(5.0, threads)

    def call(n: int) -> int:
        if n % 5 == 3:
            raise ValueError(n)
        time.sleep(0.001 * (n % 3))
        return n

    expected = [Outcome(failure=f"ValueError: {n}") if n % 5 == 3 else Outcome(n) for n in range(calls)]
    assert watch.run([lambda n=n: call(n) for n in range(calls)]) == expected
    watch.close()


def test_as_many_calls_run_at_once_as_there_are_threads():
    watch, together = Watch(20.0, threads=3), threading.Barrier(3)
    assert [outcome.failure for outcome in watch.run([lambda: together.wait(10)] * 3)] == [None] * 3
    watch.close()


def test_calls_that_hang_in_several_threads_are_given_up_at_the_same_time(hang):
    watch = Watch(0.4, threads=4)
    began = time.perf_counter()
    outcomes = watch.run([hang, hang, hang, hang, lambda: 5, lambda: 6])
    assert time.perf_counter() - began < 1.2
    assert [outcome.hung for outcome in outcomes] == [True] * 4 + [False] * 2
    assert [outcome.value for outcome in outcomes[4:]] == [5, 6]
    assert watch.abandoned == 4
    watch.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_several_callers_get_their_own_outcomes(threads):
    watch, got = Watch(10.0, threads), {}

    def caller(name: int) -> None:
        got[name] = [watch.run([lambda n=n: (name, n) for n in range(20)]) for _ in range(10)]

    callers = [threading.Thread(target=caller, args=(name,)) for name in range(6)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert got == {name: [[Outcome((name, n)) for n in range(20)]] * 10 for name in range(6)}
    watch.close()


def test_waiting_for_another_caller_is_not_counted_as_hanging():
    watch, got = Watch(0.4), []
    callers = [threading.Thread(target=lambda: got.append(watch.run([lambda: time.sleep(0.25)]))) for _ in range(5)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert got == [[Outcome(None)]] * 5
    assert watch.abandoned == 0
    watch.close()


def test_callers_behind_one_that_hangs_are_served_by_another_thread(hang):
    watch, got = Watch(0.2), []
    first = threading.Thread(target=lambda: watch.run([hang]))
    first.start()
    time.sleep(0.05)
    second = threading.Thread(target=lambda: got.append(watch.run([lambda: 2])))
    second.start()
    for one in (first, second):
        one.join(10)
    assert got == [[Outcome(2)]] and watch.abandoned == 1
    watch.close()


def test_there_are_as_many_threads_as_asked_for_and_none_is_left():
    before = set(threading.enumerate())
    watch = Watch(5.0)
    for _ in range(20):
        watch.run([lambda: 1] * 3)
    (own,) = set(threading.enumerate()) - before
    several = Watch(5.0, threads=4)
    several.run([lambda: 1] * 9)
    started = set(threading.enumerate()) - before
    assert len(started) == 5 and own in started
    watch.close()
    several.close()
    for thread in started:
        thread.join(5)
    assert not any(thread.is_alive() for thread in started)


def test_less_than_one_thread_is_refused():
    with pytest.raises(InputError, match="threads = 0: must be at least 1"):
        Watch(1.0, threads=0)


# ---- calls that are watched elsewhere -------------------------------------------------------------------------------


def test_time_with_a_limit_of_its_own_is_not_counted(hang):
    watch = Watch(0.2)

    def elsewhere() -> str:
        with timed_elsewhere():
            time.sleep(0.5)
        time.sleep(0.15)
        return "there"

    def then_hangs() -> None:
        with timed_elsewhere():
            time.sleep(0.3)
        hang()

    assert watch.run([elsewhere, lambda: 2]) == [Outcome("there"), Outcome(2)]
    assert watch.abandoned == 0
    assert [outcome.hung for outcome in watch.run([then_hangs, lambda: 4])] == [True, False]
    with timed_elsewhere():
        pass
    watch.close()


def test_what_failed_elsewhere_is_said_in_its_own_words(watch):
    def failed(hung: bool) -> None:
        raise CallFailed("ValueError: boom", hung)

    assert watch.run([lambda: failed(False), lambda: failed(True)]) == [
        Outcome(failure="ValueError: boom"),
        Outcome(failure="ValueError: boom", hung=True),
    ]
    assert watch.abandoned == 0
    assert failure_of(CallFailed("OSError: gone")) == failure_of(OSError("gone")) == "OSError: gone"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_broken_run_is_more_than_the_failure_of_a_call(threads):
    watch = Watch(5.0, threads)

    def broken() -> None:
        raise BrokenRunError("nobody is left")

    with pytest.raises(BrokenRunError, match="nobody is left"):
        watch.run([lambda: 1, broken, lambda: 3])
    assert watch.run([lambda: 4]) == [Outcome(4)]
    watch.close()


def test_the_time_callers_waited_is_added_up():
    watch = Watch(5.0)
    watch.run([lambda: time.sleep(0.05)])
    before = watch.seconds
    watch.run([lambda: time.sleep(0.05), lambda: time.sleep(0.05)])
    assert before >= 0.05 and watch.seconds - before >= 0.1
    watch.close()
