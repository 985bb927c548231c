"""The workers of a pool together: where sessions go, which weights all serve, and what happens when one dies."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace

from stratagem.cluster.dispatcher import Dispatcher, told
from stratagem.cluster.rollout_worker import Greeting
from stratagem.cluster.settings import PoolSettings
from stratagem.cluster.turns import Call, Growing, Session, Turn
from stratagem.cluster.weights import Update
from stratagem.cluster.worker import Workers
from stratagem.errors import BrokenRunError, InputError
from stratagem.language.engine import Engine


class Crew:
    """Workers, each with a thread that gives it work (:class:`~.dispatcher.Dispatcher`).

    All state is behind one lock, which nobody holds while a worker works.

    restarts: workers started again so far.  reread: tokens read again since a session came to another worker, or its
    worker started again.  update: the weights to serve, None while workers serve those they started with.
    keeping: closed sessions that every worker is to keep.
    """

    def __init__(self, build: Callable[[], Engine], workers: Workers, count: int, settings: PoolSettings) -> None:
        if count < 1:
            raise InputError(f"a pool needs at least 1 worker, got {count}")
        self.build, self.workers, self.settings = build, workers, settings
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.keys = itertools.count()
        self.restarts = self.reread = self.keeping = 0
        self.update: Update | None = None
        self.broken: Exception | None = None
        self.stopped = False
        self.dispatchers = [Dispatcher(self, number) for number in range(count)]
        for dispatcher in self.dispatchers:
            dispatcher.thread.start()

    def greetings(self) -> list[Greeting]:
        """What the workers said when they had started; waits for that.

        Raises what :meth:`check` does, and then no worker is left running.
        """
        try:
            with self.lock:
                while any(one.greeting is None and not one.lost for one in self.dispatchers) and not self.broken:
                    self.changed.wait()
                self.check()
                return [one.greeting for one in self.dispatchers if one.greeting is not None]
        except BaseException:
            self.shut_down()
            raise

    def shut_down(self) -> None:
        """End all threads and workers."""
        with self.lock:
            self.stopped = True
            self._wake()
            running = [one.worker for one in self.dispatchers if one.worker is not None]
        for worker in running:
            worker.kill()
        for dispatcher in self.dispatchers:
            if dispatcher.thread is not threading.current_thread():
                dispatcher.thread.join(timeout=10.0)

    def check(self) -> None:
        """Raise what broke: :class:`BrokenRunError` when no worker is left, or why none can be started."""
        if self.broken is not None:
            raise type(self.broken)(*self.broken.args)
        if self.stopped:
            raise BrokenRunError("the pool was shut down")

    @property
    def live(self) -> list[Dispatcher]:
        """Those that may still be given work."""
        return [one for one in self.dispatchers if not one.lost]

    # ---- sessions, under the lock -----------------------------------------------------------------------------------

    def placed(self, count: int) -> list[Session]:
        """New sessions, in blocks to those workers that have the fewest; what is opened together stays together."""
        loads = [(one.pinned, one.number) for one in self.live]
        heapify(loads)
        given = dict.fromkeys(sorted(number for _, number in loads), 0)
        for _ in range(count):
            load, number = loads[0]
            given[number] += 1
            heapreplace(loads, (load + 1, number))
        for number, many in given.items():
            self.dispatchers[number].pinned += many
        return [Session(number) for number, many in given.items() for _ in range(many)]

    def forget(self, session: Session) -> None:
        """Let the session's worker forget it."""
        dispatcher = self.dispatchers[session.place]
        if session.key is not None and session.life == dispatcher.life and not dispatcher.lost:
            dispatcher.unneeded.append(session.key)
            dispatcher.wake.notify()
        session.key, session.held = None, 0

    def move(self, session: Session, place: int) -> None:
        """Pin a session to another worker, which has to read it again."""
        if session.place != place:
            self.forget(session)
            self.dispatchers[session.place].pinned -= 1
            self.dispatchers[place].pinned += 1
            session.place = place

    def lightest(self) -> int:
        """Number of the worker with the fewest sessions."""
        return min(self.live, key=lambda one: one.pinned).number

    # ---- work, under the lock ---------------------------------------------------------------------------------------

    def submit(self, turns: Sequence[Turn]) -> None:
        """Hand turns to the workers of their sessions."""
        for turn in turns:
            if self.dispatchers[turn.session.place].lost:
                self.move(turn.session, self.lightest())
            self.dispatchers[turn.session.place].give(turn)

    def submit_tree(self, growing: Growing) -> None:
        """Hand a tree to the worker that holds most of it, to which its other sessions are moved."""
        held = {one.number: 0 for one in self.live}
        for turn in growing.turns:
            session = turn.session
            if session.place in held and session.life == self.dispatchers[session.place].life:
                held[session.place] += session.held
        self.move_tree(growing, max(held, key=lambda number: (held[number], -self.dispatchers[number].pinned)))

    def move_tree(self, growing: Growing, place: int) -> None:
        """Hand a tree to this worker."""
        for turn in growing.turns:
            self.move(turn.session, place)
        self.dispatchers[place].give(growing)

    def out(self, turn: Turn) -> None:
        """A turn has ended, or was given up; with the last one its call ends, and sessions get what was said."""
        call = turn.call
        call.left -= 1
        if call.left:
            return
        for one in call.turns:
            one.session.busy = None
            if call.error is not None:
                # Some may have been sampled; all sessions are to be as they were.
                self.forget(one.session)
            elif one.tokens:
                one.session.tokens += [*one.request.tokens, *one.tokens]
        call.ended.set()

    def lost(self, dispatcher: Dispatcher, error: Exception) -> None:
        """A worker died and is not started again: its work goes to the others, or everything ends."""
        if not self.live:
            used = f"{self.restarts} of {self.settings.most_restarts} restarts were used"
            self.give_up(BrokenRunError(f"{dispatcher.name}: {told(error)}; no worker is left, {used}"))
            return
        work = list(dispatcher.waiting)
        dispatcher.waiting.clear()
        for one in work:
            if isinstance(one, Growing):
                self.move_tree(one, self.lightest())
            else:
                self.submit([one])
        self.changed.notify_all()

    def give_up(self, error: Exception) -> None:
        """Nothing can go on: whoever waits gets this error."""
        self.broken = self.broken or error
        self._wake()

    # ---- weights ----------------------------------------------------------------------------------------------------

    def serve(self, update: Update) -> None:
        """Let every worker load these weights, and wait for it. Raises what a worker found wrong with them.

        Then those before are served again.
        """
        with self.lock:
            self.check()
            before, self.update = self.update, update
            self._wake()
            while any(one.answered is not update for one in self.live) and not (self.broken or self.stopped):
                self.changed.wait()
            self.check()
            if update.error is not None:
                self.update = before
                self._wake()
                raise update.error
            update.settled = True

    def keep(self, most: int) -> None:
        """Let every worker keep up to so many closed sessions."""
        with self.lock:
            self.keeping = most
            self._wake()

    def run(self, call: Call) -> None:
        """Wait for a call to end; raises its error."""
        try:
            call.ended.wait()
        except BaseException as error:
            with self.lock:
                call.fail(error)
            raise
        if call.error is not None:
            raise call.error

    def _wake(self) -> None:
        for dispatcher in self.dispatchers:
            dispatcher.wake.notify()
        self.changed.notify_all()
