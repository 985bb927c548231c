"""Calls into other people's environments, watched: one that raises or hangs costs its own episode and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a call returned, or why it did not; ``hung`` when it may still be running."""

    value: T | None = None
    failure: str | None = None
    hung: bool = False


class _Job(Generic[T]):
    """A batch of calls on its way through a worker thread."""

    def __init__(self, calls: Sequence[Callable[[], T]], start: int) -> None:
        self.calls, self.position = calls, start
        self.outcomes: list[Outcome[T]] = []
        self.progressed = threading.Condition()
        self.abandoned = False


class Watch:
    """Runs calls one after another in a worker thread and gives up on one that takes longer than ``timeout`` seconds.

    A thread cannot be killed, so a hung call keeps its thread (and whatever it holds) until the process ends; a fresh
    thread goes on with the calls after it. ``abandoned`` counts them.

    Several threads may use it at once: each has a worker of its own, so that none waits for the calls of another.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.abandoned = 0
        self._mine = threading.local()
        self._workers: list[SimpleQueue[_Job[object] | None]] = []

    def run(self, calls: Sequence[Callable[[], T]]) -> list[Outcome[T]]:
        """The outcome of every call, in order."""
        outcomes: list[Outcome[T]] = []
        while len(outcomes) < len(calls):
            job: _Job[T] = _Job(calls, len(outcomes))
            if not hasattr(self._mine, "queue"):
                self._mine.queue = self._worker()
            self._mine.queue.put(job)
            outcomes += self._await(job)
        return outcomes

    def close(self) -> None:
        """Let the worker threads end."""
        while self._workers:
            self._workers.pop().put(None)

    def _await(self, job: _Job[T]) -> list[Outcome[T]]:
        """Wait while calls keep finishing; after a time-out, what there is and the failure of the call that hung."""
        with job.progressed:
            while job.position < len(job.calls):
                before = job.position
                job.progressed.wait(self.timeout)
                if job.position == before:
                    job.abandoned = True
                    self.abandoned += 1
                    if self._mine.queue in self._workers:
                        self._workers.remove(self._mine.queue)
                    self._mine.queue = self._worker()
                    return [*job.outcomes, Outcome(failure=f"no answer within {self.timeout:g} s", hung=True)]
            return job.outcomes

    def _worker(self) -> SimpleQueue[_Job[object] | None]:
        queue: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._workers.append(queue)
        threading.Thread(target=_work, args=(queue,), daemon=True, name="stratagem-environments").start()
        return queue


def _work(queue: SimpleQueue[_Job[object] | None]) -> None:
    while (job := queue.get()) is not None:
        for call in job.calls[job.position :]:
            try:
                outcome: Outcome[object] = Outcome(call())
            except BaseException as error:  # An environment may not end our thread by sys.exit() either.
                outcome = Outcome(failure=f"{type(error).__name__}: {error}")
            with job.progressed:
                if job.abandoned:
                    return
                job.outcomes.append(outcome)
                job.position += 1
                # Waking the waiter for every call would cost more than the call: it looks for itself at time-outs.
                if job.position == len(job.calls):
                    job.progressed.notify()
