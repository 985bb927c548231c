"""The engine pool: sessions here, their work in engines elsewhere."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from stratagem.cluster.crew import Crew
from stratagem.cluster.rollout_worker import Greeting
from stratagem.cluster.settings import PoolSettings
from stratagem.cluster.turns import Call, Growing, Session
from stratagem.cluster.weights import DifferentMergeError, Sender
from stratagem.cluster.worker import Workers
from stratagem.errors import InputError
from stratagem.language.engine import Completion, Engine, Request, WeightSource, Written
from stratagem.language.stops import check_open, check_requests
from stratagem.sampling.growth import Growth


class EnginePool:
    """Serves a policy with the engines of several workers (see :class:`~stratagem.language.engine.Engine`).

    :func:`start_pool` makes one. A session is pinned to a worker; those that are opened together lie in blocks, so that
    a group that begins alike shares what it read. The pool keeps the tokens of all sessions: when a worker dies, its
    sessions are read again, by itself once it was started anew or by the others, and what it had not answered is asked
    again with the same seeds.

    Any number of threads may use it at once, each with sessions of its own; a session takes one turn at a time. What
    waits for a worker is merged, first come first served. With ``slice_tokens`` a turn is sampled in slices, between
    which others come in and weights change: a completion's ``versions`` then tell its tokens apart. A slice after the
    first has the seed ``derive(seed, "slice", tokens so far)``. Without, samples are those of the worker's engine.

    Until the first :meth:`load_weights` workers serve the weights they were built with.
    """

    def __init__(self, crew: Crew, greetings: Sequence[Greeting]) -> None:
        self._crew, self._greetings = crew, list(greetings)
        self._sender = Sender(crew.workers.put)
        self._loading = threading.Lock()
        self._sessions: dict[int, Session] = {}
        self._opened = 0
        self._keeping: list[int] = []
        self._version = max(greeting.version for greeting in greetings)
        self._asked = [(time.perf_counter(), 0.0) for _ in crew.dispatchers]

    def shut_down(self) -> None:
        """End the workers; the pool must not be used afterwards."""
        self._crew.shut_down()

    # ---- as an engine -----------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Of the weights that every worker serves."""
        return self._version

    @property
    def prefilled(self) -> int:
        """Tokens that all workers computed so far, and did not sample."""
        return sum(one.prefilled for one in self._crew.dispatchers)

    @property
    def taken_over(self) -> int:
        """Tokens so far that a session read and another one of its worker had computed."""
        return sum(one.taken_over for one in self._crew.dispatchers)

    @contextmanager
    def keeping(self, most: int) -> Iterator[None]:
        """While it lasts, what up to ``most`` closed sessions of every worker computed stays.

        Of several that last at once the largest counts.
        """
        with self._crew.lock:
            self._keeping.append(most)
            self._crew.keep(max(self._keeping))
        try:
            yield
        finally:
            with self._crew.lock:
                self._keeping.remove(most)
                self._crew.keep(max(self._keeping, default=0))

    def open(self, count: int) -> list[int]:
        """Start ``count`` empty sessions. Raises :class:`InputError` beyond ``max_sessions`` for each worker."""
        with self._crew.lock:
            self._crew.check()
            live = len(self._crew.live)
            most = self._crew.settings.max_sessions * live
            if len(self._sessions) + count > most:
                raise InputError(
                    f"{count} sessions beside the {len(self._sessions)} open ones exceed "
                    f"max_sessions={self._crew.settings.max_sessions} for each of {live} workers"
                )
            return self._adopt(self._crew.placed(count))

    def close(self, sessions: Sequence[int]) -> None:
        """Forget these sessions; their workers do so before they sample again.

        Raises :class:`InputError` for one that is not open or has a turn running.
        """
        with self._crew.lock:
            for number in sessions:
                self._check_idle(number)
            for number in dict.fromkeys(sessions):
                session = self._sessions.pop(number)
                self._crew.dispatchers[session.place].pinned -= 1
                if session.busy is None:
                    self._crew.forget(session)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One turn of each of these sessions, in the order of the requests.

        Raises :class:`InputError` for a session that is not open, occurs twice, has a turn running or has nothing to
        continue from, and for what the workers' engines refuse; then all sessions are as they were.
        :class:`BrokenRunError` when no worker is left.
        """
        if not requests:
            return []
        with self._crew.lock:
            call = self._call(requests)
            self._crew.submit(call.turns)
        self._crew.run(call)
        return [turn.completion for turn in call.turns]

    def load_weights(self, policy: WeightSource, version: int) -> None:
        """Let every worker serve the policy's weights, from its next turn or slice on; returns when all do.

        The tensors go into the object store once. Of a policy with adapters only these are sent, once the rest was;
        where a worker's merge comes to other bits than the learner's, merged weights are sent from then on.

        Raises :class:`~stratagem.language.engine.WeightMismatchError` when a worker does not serve what the policy
        gave, by the fingerprint of every tensor, even after it was started again.
        """
        with self._loading:
            try:
                self._crew.serve(self._sender.packed(policy, version))
            except DifferentMergeError as error:
                warnings.warn(f"{error}; merged weights are sent from now on", stacklevel=2)
                self._sender.merging = False
                self._crew.serve(self._sender.packed(policy, version))
            self._version = version

    # ---- what it measures -------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[dict[str, Any]]:
        """Of every worker: number, node, pid, versions, whether it is alive, and ``sampled``, its tokens so far."""
        with self._crew.lock:
            return [
                {"number": one.number, "alive": not one.lost, "sampled": one.sampled, **one.about}
                for one in self._crew.dispatchers
            ]

    @property
    def restarts(self) -> int:
        """Workers started again so far."""
        return self._crew.restarts

    @property
    def reread(self) -> int:
        """Tokens that were read again because a worker died or a session came to another one."""
        return self._crew.reread

    @property
    def sent_bytes(self) -> int:
        """Of the last update of weights, put into the object store once for all workers."""
        return self._sender.sent_bytes

    def seconds(self) -> tuple[float, float]:
        """Of the workers' time so far, on average: generating, and until what they had generated was here."""
        with self._crew.lock:
            ones = self._crew.dispatchers
            return sum(one.busy for one in ones) / len(ones), sum(one.on_the_way for one in ones) / len(ones)

    def utilization(self) -> list[float]:
        """Share of the time since the last ask that each worker spent generating, in [0, 1].

        A call counts when it ends, so that one which spans two asks counts in the second.
        """
        now = time.perf_counter()
        with self._crew.lock:
            busy = [one.busy for one in self._crew.dispatchers]
        shares = [
            min((seconds - before) / max(now - asked, 1e-9), 1.0)
            for seconds, (asked, before) in zip(busy, self._asked, strict=True)
        ]
        self._asked = [(now, seconds) for seconds in busy]
        return shares

    # ---- help -------------------------------------------------------------------------------------------------------

    def _adopt(self, sessions: Sequence[Session]) -> list[int]:
        numbers = list(range(self._opened, self._opened + len(sessions)))
        self._opened += len(sessions)
        self._sessions |= zip(numbers, sessions, strict=True)
        return numbers

    def _call(self, requests: Sequence[Request]) -> Call:
        """A call for these requests, whose sessions are busy from now on. Under the lock."""
        self._crew.check()
        named = {request.session for request in requests}
        check_requests(requests, {n: len(self._sessions[n].tokens) for n in named if n in self._sessions})
        for number in named:
            if self._sessions[number].busy is not None:
                raise InputError(f"session {number} has a turn running")
        return Call(requests, [self._sessions[request.session] for request in requests])

    def _check_idle(self, number: int) -> None:
        check_open(number, self._sessions)
        busy = self._sessions[number].busy
        if busy is not None and busy.error is None:
            raise InputError(f"session {number} has a turn running")


class TreePool(EnginePool):
    """A pool whose workers show their distributions (:class:`~stratagem.language.engine.TreeEngine`)."""

    @property
    def vocabulary(self) -> int:
        """Tokens it chooses among."""
        vocabulary = self._greetings[0].vocabulary
        assert vocabulary is not None
        return vocabulary

    def grow(self, requests: Sequence[Request], paths: Sequence[int], growth: Growth) -> list[Written]:
        """One turn of each of these paths and of all that come off them, by one worker, whole and not in slices.

        It is the worker that holds most of the sessions; the others' move to it. ``growth`` is afterwards as the worker
        left its copy. Raises :class:`InputError` and :class:`BrokenRunError` as :meth:`generate` does.
        """
        if not requests:
            return []
        with self._crew.lock:
            call = self._call(requests)
            growing = Growing(call.turns, list(paths), growth)
            self._crew.submit_tree(growing)
        self._crew.run(call)
        answer = growing.answer
        assert answer is not None and answer.written is not None and answer.growth is not None
        growth.adopt(answer.growth)
        with self._crew.lock:
            numbers = [request.session for request in requests] + self._adopt(growing.fresh)
        return [replace(written, session=number) for written, number in zip(answer.written, numbers, strict=True)]


def start_pool(
    build: Callable[[], Engine], workers: Workers, count: int, settings: PoolSettings | None = None
) -> EnginePool:
    """A pool of ``count`` workers, once all have started; a :class:`TreePool` where their engines are tree engines.

    build: makes a worker's engine, in the worker: an :class:`~.rollout_worker.EngineSpec`, or any function that can be
    pickled.  workers: where they come from, such as :func:`~.ray_actors.ray_workers`.

    Raises :class:`InputError` for no worker, what ``build`` refuses, and a worker of another version of stratagem or
    Python than the driver's; :class:`BrokenRunError` when none of them starts.
    """
    crew = Crew(build, workers, count, settings or PoolSettings())
    greetings = crew.greetings()
    trees = all(greeting.vocabulary is not None for greeting in greetings)
    return (TreePool if trees else EnginePool)(crew, greetings)
