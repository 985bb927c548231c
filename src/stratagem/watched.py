"""Calls into other people's environments, watched: one that raises or hangs costs its own episode and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

from stratagem.errors import BrokenRunError, InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a call returned, or why it did not; ``hung`` when it may still be running."""

    value: T | None = None
    failure: str | None = None
    hung: bool = False


class CallFailed(Exception):
    """Raised by a call that failed where it was watched already: its message is what that watch said, word for word.

    hung: as in :class:`Outcome`.
    """

    def __init__(self, failure: str, hung: bool = False) -> None:
        super().__init__(failure)
        self.hung = hung


def failure_of(error: BaseException) -> str:
    """What an outcome says of what a call raised."""
    return str(error) if isinstance(error, CallFailed) else f"{type(error).__name__}: {error}"


class _Job(Generic[T]):
    """A batch of calls on its way through a worker thread.

    since: when the present call began; None while the thread is busy with other jobs.
    untimed: whether the present call keeps to a limit of its own.  broken: what ended the whole run.
    """

    def __init__(self, calls: Sequence[Callable[[], T]], start: int) -> None:
        self.calls, self.position = calls, start
        self.outcomes: list[Outcome[T]] = []
        self.progressed = threading.Condition()
        self.abandoned = False
        self.since: float | None = None
        self.untimed = False
        self.broken: BrokenRunError | None = None


_thread = threading.local()
"""``job``: what a worker thread is busy with."""


@contextmanager
def timed_elsewhere() -> Iterator[None]:
    """What a watched call does within has a time limit of its own, and may take longer than the watch allows."""
    job: _Job[object] | None = getattr(_thread, "job", None)
    if job is None:
        yield
        return
    with job.progressed:
        job.untimed = True
    try:
        yield
    finally:
        with job.progressed:
            job.untimed, job.since = False, monotonic()


class Watch:
    """Runs calls in worker threads and gives up on one that takes longer than ``timeout`` seconds.

    threads: how many calls run at once, at least 1. With 1 the calls of a run are made one after another, as most
    environments need it; more are for calls that wait for others (a server, a process), or whose environments may be
    used from several threads. The calls of a run are dealt out to the threads in turn. Several callers may run calls
    at the same time; time that a call waits for those of another caller is not counted.

    A thread cannot be killed, so a hung call keeps its thread (and whatever it holds) until the process ends; a fresh
    thread goes on with the calls after it. ``abandoned`` counts them. ``seconds`` is how long callers have waited so
    far, all together.

    Raises :class:`InputError` for less than one thread; :meth:`run` raises a :class:`BrokenRunError` of a call as it
    is, since that is about more than one episode.
    """

    def __init__(self, timeout: float, threads: int = 1) -> None:
        if threads < 1:
            raise InputError(f"watch: threads = {threads}: must be at least 1")
        self.timeout = timeout
        self.abandoned = 0
        self.seconds = 0.0
        self._counting = threading.Lock()
        self._queues: list[SimpleQueue[_Job[object] | None]] = [SimpleQueue() for _ in range(threads)]
        for queue in self._queues:
            _start(queue)

    def run(self, calls: Sequence[Callable[[], T]]) -> list[Outcome[T]]:
        """The outcome of every call, in order."""
        began = monotonic()
        try:
            return self._run(calls)
        finally:
            with self._counting:
                self.seconds += monotonic() - began

    def _run(self, calls: Sequence[Callable[[], T]]) -> list[Outcome[T]]:
        used = min(len(self._queues), len(calls))
        if used == 1:
            return self._finish(self._queues[0], self._submit(self._queues[0], calls, 0))
        jobs = [self._submit(self._queues[place], calls[place::used], 0) for place in range(used)]
        outcomes: list[Outcome[T]] = [Outcome()] * len(calls)
        for place, job in enumerate(jobs):
            outcomes[place::used] = self._finish(self._queues[place], job)
        return outcomes

    def close(self) -> None:
        """Let the worker threads end."""
        for queue in self._queues:
            queue.put(None)

    @staticmethod
    def _submit(queue: SimpleQueue[_Job[object] | None], calls: Sequence[Callable[[], T]], start: int) -> _Job[T]:
        job: _Job[T] = _Job(calls, start)
        queue.put(job)  # type: ignore[arg-type]
        return job

    def _finish(self, queue: SimpleQueue[_Job[object] | None], job: _Job[T]) -> list[Outcome[T]]:
        """The outcomes of a job, whose calls behind one that hung go on in another."""
        outcomes = self._await(queue, job)
        while len(outcomes) < len(job.calls):
            outcomes += self._await(queue, self._submit(queue, job.calls, len(outcomes)))
        return outcomes

    def _await(self, queue: SimpleQueue[_Job[object] | None], job: _Job[T]) -> list[Outcome[T]]:
        """Wait while calls keep finishing; after a time-out, what there is and the failure of the call that hung."""
        with job.progressed:
            while job.position < len(job.calls):
                if job.broken is not None:
                    raise job.broken
                counted = not job.untimed and job.since is not None
                left = self.timeout if not counted else job.since + self.timeout - monotonic()  # type: ignore[operator]
                if left > 0:
                    job.progressed.wait(left)
                    continue
                job.abandoned = True
                with self._counting:
                    self.abandoned += 1
                _start(queue)
                return [*job.outcomes, Outcome(failure=f"no answer within {self.timeout:g} s", hung=True)]
            return job.outcomes


def _start(queue: SimpleQueue[_Job[object] | None]) -> None:
    """A thread that takes jobs from here; one that is there already and hangs in a call takes no other."""
    threading.Thread(target=_work, args=(queue,), daemon=True, name="stratagem-environments").start()


def _work(queue: SimpleQueue[_Job[object] | None]) -> None:
    while (job := queue.get()) is not None:
        _thread.job = job
        with job.progressed:
            job.since = monotonic()
        if not _through(job):
            return


def _through(job: _Job[object]) -> bool:
    """Make the calls of a job; False when it was given up meanwhile, and with it the thread."""
    for call in job.calls[job.position :]:
        try:
            outcome: Outcome[object] = Outcome(call())
        except BrokenRunError as error:
            with job.progressed:
                job.broken = error
                job.progressed.notify()
                return not job.abandoned
        except BaseException as error:  # An environment may not end our thread by sys.exit() either.
            outcome = Outcome(failure=failure_of(error), hung=isinstance(error, CallFailed) and error.hung)
        with job.progressed:
            if job.abandoned:
                return False
            job.outcomes.append(outcome)
            job.position += 1
            job.since = monotonic()
            # Waking the waiter for every call would cost more than the call: it looks for itself at time-outs.
            if job.position == len(job.calls):
                job.progressed.notify()
    return True
