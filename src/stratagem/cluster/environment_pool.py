"""Workers that hold environments, and what is remembered of each one so that another worker can take it over."""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from stratagem.cluster.environment_host import Answer, Call, Origin, Reply, Worker, WorkerLost
from stratagem.errors import BrokenRunError, InputError
from stratagem.watched import CallFailed, timed_elsewhere

ALONE = 2
"""So often a worker may die of a call that it was doing by itself; then the call has failed."""


@dataclass
class Counters:
    """What happened so far.

    restarts: workers started in place of one that died, or in which a call hung.  given_up: workers that are no more.
    replayed: environments that were made again.  replayed_steps: steps said again to them.
    nondeterministic: environments that then showed something else.  hung, deadly: calls that took too long, and of
    which their worker died.
    """

    restarts: int = 0
    given_up: int = 0
    replayed: int = 0
    replayed_steps: int = 0
    nondeterministic: int = 0
    hung: int = 0
    deadly: int = 0


@dataclass(eq=False)
class Place:
    """An environment as the driver knows it.

    said: all that was said to it, None for a reset, and what it answered: a value, or the words of its failure.
    lane: the worker that it belongs to.  held: the generation of the worker that has it; None: none has.
    over: it hung, or was closed.
    """

    number: int
    origin: Origin
    said: list[tuple[str | None, tuple[Any, str | None]]] = field(default_factory=list)
    lane: _Lane | None = None
    held: int | None = None
    over: bool = False


@dataclass(eq=False)
class _Request:
    """A call on its way.

    alone: whether it is to be made by itself, since it was among those at which a worker died.
    deaths: how often its worker died of it then.
    """

    place: Place
    method: Literal["reset", "step", "close"]
    action: str | None
    future: Future[Any] = field(default_factory=Future)
    deaths: int = 0
    alone: bool = False


class EnvironmentPool:
    """Environments in worker processes. Each worker makes one call at a time; calls that wait for it go there together.

    A worker that dies is started again, and its environments are made again when they are next called, perhaps in
    another worker, and told what they were told before. Where one then answers something else, it has failed. A call
    that takes longer than ``timeout`` has failed, and its worker is killed, so that nothing of it goes on. So has a
    call of which, by itself, the worker dies twice.

    start: starts the worker of a number; what it raises counts as a death, but for the first time, when it is raised.
    workers: at least 1.  timeout: seconds, as the workers have it.
    most_restarts: of a worker in a row, without a call that came back; at least 0. The others then take over.

    Raises :class:`InputError` for numbers out of range; in calls :class:`CallFailed` with the words of what an
    environment raised, and :class:`BrokenRunError` when no worker is left.
    """

    def __init__(
        self, start: Callable[[int], Worker], workers: int, timeout: float = 30.0, most_restarts: int = 3
    ) -> None:
        if workers < 1:
            raise InputError(f"environment pool: workers = {workers}: must be at least 1")
        if most_restarts < 0:
            raise InputError(f"environment pool: most_restarts = {most_restarts}: must be at least 0")
        if not timeout > 0:
            raise InputError(f"environment pool: timeout = {timeout}: must be above 0")
        self.start, self.timeout, self.most_restarts = start, timeout, most_restarts
        self.counters = Counters()
        self._lock = threading.Lock()
        self._numbers = count()
        self._closed = False
        self._why = "it was closed"
        self._asked = time.perf_counter(), 0.0
        self._lanes = [_Lane(self, number, worker) for number, worker in enumerate(_all_started(start, workers))]

    # ---- calls -----------------------------------------------------------------------------------------------------

    def place(self, origin: Origin) -> Place:
        """An environment that no worker has made yet."""
        return Place(next(self._numbers), origin)

    def call(self, place: Place, method: Literal["reset", "step", "close"], action: str | None = None) -> Any:
        """What the environment returns; an environment is called by one caller at a time."""
        if place.over:
            raise CallFailed("RuntimeError: the environment is closed, or hung")
        request = _Request(place, method, action)
        with timed_elsewhere():
            self.route(request)
            return request.future.result()

    def forget(self, place: Place) -> None:
        """Close an environment, once. Where no worker has it, there is nothing to close."""
        if not place.over:
            try:
                if place.held is not None:
                    self.call(place, "close")
            finally:
                place.over = True
                self._leave(place)

    def route(self, request: _Request) -> None:
        """To the worker that its environment belongs to, or to the one with the fewest."""
        place = request.place
        with self._lock:
            if place.lane is None or not place.lane.alive:
                alive = [lane for lane in self._lanes if lane.alive]
                if request.method == "close":  # It went with its worker.
                    request.future.set_result(None)
                    return
                if self._closed or not alive:
                    request.future.set_exception(BrokenRunError(f"no environment worker is left: {self._why}"))
                    return
                if place.lane is not None:
                    place.lane.members -= 1
                place.lane, place.held = min(alive, key=lambda lane: lane.members), None
                place.lane.members += 1
            place.lane.put(request)

    def _leave(self, place: Place) -> None:
        with self._lock:
            if place.lane is not None:
                place.lane.members -= 1
                place.lane = None
            place.held = None

    # ---- what lanes report -----------------------------------------------------------------------------------------

    def answered(self, request: _Request, reply: Reply, generation: int) -> None:
        """A worker replied to a call."""
        place = request.place
        if reply.skipped:
            self.route(request)
            return
        if reply.hung:
            self.gave_up(request, CallFailed(reply.answer.failure or "", hung=True))
            return
        place.held = generation if reply.held else None
        try:
            self._compare(place, reply.led)
            value = None if reply.answer.value is None else pickle.loads(reply.answer.value)
        except CallFailed as failed:
            request.future.set_exception(failed)
            return
        except Exception as error:  # A class that this process does not have, or that breaks when it is read.
            request.future.set_exception(CallFailed(f"{type(error).__name__}: {error}"))
            return
        if reply.held:
            place.said.append((request.action, (value, reply.answer.failure)))
        if reply.answer.failure is None:
            request.future.set_result(value)
        else:
            request.future.set_exception(CallFailed(reply.answer.failure))

    def lost(self, batch: Sequence[_Request], lost: WorkerLost) -> None:
        """A worker died of one of these calls, or of none of them: each is made again by itself."""
        for request in batch:
            if request.method == "close":
                request.future.set_result(None)
                continue
            request.deaths += request.alone
            if lost.hung and len(batch) == 1:
                self.gave_up(request, CallFailed(f"no answer within {self.timeout:g} s", hung=True))
            elif request.deaths >= ALONE:
                self.count("deadly")
                request.place.over = True
                self._leave(request.place)
                request.future.set_exception(CallFailed(f"its worker died of it: {lost}"))
            else:
                request.alone = True
                self.route(request)

    def gave_up(self, request: _Request, failed: CallFailed) -> None:
        """A call took too long; its environment is gone with its worker."""
        self.count("hung")
        request.place.over = True
        self._leave(request.place)
        request.future.set_exception(failed)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the counters."""
        with self._lock:
            setattr(self.counters, name, getattr(self.counters, name) + by)

    def bury(self, lane: _Lane, why: str) -> list[_Request]:
        """A worker is started no more; the calls that waited for it."""
        self.count("given_up")
        with self._lock:
            lane.alive, self._why = False, why
            waiting = list(lane.waiting)
            lane.waiting.clear()
        return waiting

    def _compare(self, place: Place, led: Sequence[Answer]) -> None:
        """Raise :class:`CallFailed` when an environment that was led again answers otherwise than before."""
        if not led:
            return
        self.count("replayed")
        self.count("replayed_steps", sum(action is not None for action, _ in place.said))
        for number, (answer, (action, before)) in enumerate(zip(led, place.said, strict=True)):
            again = None if answer.value is None else pickle.loads(answer.value), answer.failure
            if again == before:
                continue
            where = "at its reset" if action is None else f"at call {number + 1} of {len(led)}"
            if answer.failure is not None and before[1] is None:
                raise CallFailed(f"made again in another worker, it failed {where}: {answer.failure}")
            self.count("nondeterministic")
            raise CallFailed(
                f"the environment is not deterministic: made again in another worker, it answered otherwise {where}: "
                f"{_difference(before[0], again[0])}"
            )

    # ---- the pool --------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> tuple[float, ...]:
        """Seconds that each worker spent on calls."""
        return tuple(lane.busy for lane in self._lanes)

    def metrics(self) -> dict[str, float]:
        """The counters so far, and the share of time that workers were busy since the last time they were asked for."""
        now, busy = time.perf_counter(), sum(self.busy)
        (before, spent), self._asked = self._asked, (now, busy)
        totals = {f"environments/{name}": float(total) for name, total in vars(self.counters).items()}
        return {**totals, "environments/utilization": (busy - spent) / max((now - before) * len(self._lanes), 1e-9)}

    def close(self) -> None:
        """Kill the workers; calls on their way fail."""
        with self._lock:
            self._closed = True
            for lane in self._lanes:
                lane.alive = False
        for lane in self._lanes:
            lane.end()


class _Lane:
    """The way to one worker: a thread that hands over the calls that wait for it.

    members: environments that belong to it.  generation: how often it was started again.
    """

    def __init__(self, pool: EnvironmentPool, number: int, worker: Worker) -> None:
        self._pool, self._number, self._worker = pool, number, worker
        self.members = self.generation = 0
        self.alive, self.busy = True, 0.0
        self.waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._in_a_row = 0
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"stratagem-environment-worker-{number}")
        self._thread.start()

    def put(self, request: _Request) -> None:
        """Hand a call over when the worker is free; first one that may be deadly, so that others need not suffer."""
        with self._changed:
            if request.alone:
                self.waiting.appendleft(request)
            else:
                self.waiting.append(request)
            self._changed.notify()

    def end(self) -> None:
        """Kill the worker, and fail what waits for it."""
        with self._changed:
            self._changed.notify()
        self._worker.kill()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._play(batch)
            except Exception as error:  # Whatever it is, nobody may wait for an answer in vain.
                broken = f"environment worker {self._number}: {type(error).__name__}: {error}"
                for request in batch:
                    if not request.future.done():
                        request.future.set_exception(BrokenRunError(broken))
        for request in self.waiting:
            self._pool.route(request)
        self.waiting.clear()
        self._worker.kill()  # The one that was started while the pool was closed.

    def _next(self) -> list[_Request]:
        """The calls that wait; one that is to be made alone, alone. None at the end."""
        with self._changed:
            while self.alive and not self.waiting:
                self._changed.wait()
            if not self.alive:
                return []
            batch = [self.waiting.popleft()]
            while self.waiting and not (batch[0].alone or self.waiting[0].alone):
                batch.append(self.waiting.popleft())
            return batch

    def _play(self, batch: Sequence[_Request]) -> None:
        # What hung or was lost with another call is no longer there to be closed.
        gone = [request for request in batch if request.method == "close" and request.place.held != self.generation]
        for request in gone:
            request.future.set_result(None)
        batch = [request for request in batch if request not in gone]
        if not batch:
            return
        try:
            replies, seconds = self._worker.play([self._call(request) for request in batch])
        except WorkerLost as lost:
            self._replace(str(lost))
            self._pool.lost(batch, lost)
            return
        self.busy += seconds
        self._in_a_row = 0
        generation = self.generation
        if any(reply.hung for reply in replies):
            self._worker.kill()
        for request, reply in zip(batch, replies, strict=True):
            self._pool.answered(request, reply, generation)
        if any(reply.hung for reply in replies):
            self._replace(f"no answer within {self._pool.timeout:g} s")

    def _call(self, request: _Request) -> Call:
        place = request.place
        if place.held == self.generation:
            return Call(place.number, request.method, request.action)
        history = tuple(action for action, _ in place.said)
        return Call(place.number, request.method, request.action, place.origin, history)

    def _replace(self, why: str) -> None:
        """Start the worker again; after too many times in a row, leave its calls to the others."""
        self._worker.kill()
        self.generation += 1
        while self.alive:
            if self._in_a_row >= self._pool.most_restarts:
                for request in self._pool.bury(self, why):
                    self._pool.route(request)
                return
            self._in_a_row += 1
            try:
                self._worker = self._pool.start(self._number)
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                continue
            self._pool.count("restarts")
            return


def _all_started(start: Callable[[int], Worker], workers: int) -> list[Worker]:
    """The workers, started side by side; when one cannot be, none is left behind."""
    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(start, number) for number in range(workers)]
    error = next((error for future in futures if (error := future.exception()) is not None), None)
    if error is None:
        return [future.result() for future in futures]
    for future in futures:
        if future.exception() is None:
            future.result().kill()
    raise error


def _difference(before: Any, again: Any) -> str:
    """The first part of two answers that is not the same, in few characters."""
    for name in ("observation", "text", "reward", "done"):
        one, other = getattr(before, name, None), getattr(again, name, None)
        if one != other:
            return _difference(one, other) if name == "observation" else f"{name} {one!r:.80} became {other!r:.80}"
    return f"{before!r:.80} became {again!r:.80}"
