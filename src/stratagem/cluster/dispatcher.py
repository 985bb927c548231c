"""The thread that gives one worker its work, and starts it again when it dies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stratagem.cluster.rollout_worker import Answer, Greeting
from stratagem.cluster.turns import Growing, Session, Turn
from stratagem.cluster.versions import check_versions
from stratagem.cluster.weights import DifferentMergeError, Update
from stratagem.cluster.worker import Worker
from stratagem.errors import BrokenRunError, InputError
from stratagem.language.engine import Completion, Request, WeightMismatchError

if TYPE_CHECKING:
    from stratagem.cluster.crew import Crew

_OF_REQUESTS = (InputError, WeightMismatchError)
"""Errors that say that something was asked wrongly; any other means that the worker is broken."""


class Dispatcher:
    """Gives one worker its work: all that waits, from whichever caller, merged into one call after another.

    Between two calls come new weights and closed sessions. When the worker dies or hangs, it is started again, gets the
    last weights, and is asked once more for what it had not answered: since what a request samples follows from its
    seed, its session's tokens and the weights, the answer is the same.

    pinned: open sessions.  life: how often the worker was started before.  lost: whether it stays away.
    unneeded: keys of sessions that it is to forget.  loaded, answered: the update that it serves, and to which it said
    yes or no.  sampled: tokens so far.  busy: seconds that it has spent generating.  on_the_way: seconds beyond that
    until what it had generated was here.
    """

    def __init__(self, crew: Crew, number: int) -> None:
        self._crew, self.number, self.name = crew, number, f"worker {number}"
        self.wake = threading.Condition(crew.lock)
        self.waiting: deque[Turn | Growing] = deque()
        self.unneeded: list[int] = []
        self.worker: Worker | None = None
        self.greeting: Greeting | None = None
        self.about: dict[str, str | int] = {}
        self.loaded: Update | None = None
        self.answered: Update | None = None
        self.pinned = self.life = self.sampled = self.prefilled = self.taken_over = 0
        self.busy = self.on_the_way = 0.0
        self.lost = False
        self._flying: dict[Turn | Growing, None] = {}
        self._kept = self._differed = 0
        self._base: Any = None
        self.thread = threading.Thread(target=self._run, name=f"pool-{number}", daemon=True)

    def give(self, work: Turn | Growing) -> None:
        """Something to do, after what waits already. Under the lock."""
        self.waiting.append(work)
        self.wake.notify()

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        crew = self._crew
        try:
            while self._awaited():
                try:
                    self._round()
                except _OF_REQUESTS as error:  # Nobody's request: the worker cannot be started, or serve the weights.
                    with crew.lock:
                        crew.give_up(error)
                except Exception as error:
                    self._failed(error)
        except BaseException as error:
            # A defect here: whoever waits must not wait for ever.
            with crew.lock:
                crew.give_up(BrokenRunError(f"{self.name}: {told(error)}"))
            raise
        finally:
            with crew.lock:
                for work in (*self._flying, *self.waiting):
                    for turn in work.turns if isinstance(work, Growing) else [work]:
                        turn.call.fail(crew.broken or BrokenRunError("the pool was shut down"))
                        crew.out(turn)
                worker, self.worker = self.worker, None
                self._flying, self.waiting = {}, deque()
                crew.changed.notify_all()
            if worker is not None:
                worker.kill()

    def _awaited(self) -> bool:
        """Wait until there is something to do; false when there never will be."""
        with self._crew.lock:
            while not (self._over or self._due):
                self.wake.wait()
            return not self._over

    @property
    def _over(self) -> bool:
        return self._crew.stopped or self.lost or self._crew.broken is not None

    @property
    def _due(self) -> bool:
        crew = self._crew
        work = self.waiting and not self._refusing
        return bool(self.worker is None or work or self.unneeded or self._outdated or self._kept != crew.keeping)

    @property
    def _outdated(self) -> bool:
        update = self._crew.update
        return update is not None and self.answered is not update

    @property
    def _refusing(self) -> bool:
        """Whether it was sent wrong weights, and waits for others."""
        return self.answered is not None and self.answered is self._crew.update and self.loaded is not self.answered

    def _round(self) -> None:
        if self.worker is None:
            self._start()
        with self._crew.lock:
            keeping, update, outdated = self._crew.keeping, self._crew.update, self._outdated
            unneeded, self.unneeded = self.unneeded, []
        if keeping != self._kept:
            self._ask("keep", keeping)
            self._kept = keeping
        if unneeded:
            self._ask("close", unneeded)
        if outdated and update is not None:
            self._load(update)
        self._work()

    def _ask(self, method: str, *arguments: Any) -> Any:
        assert self.worker is not None
        return self.worker.call(method, *arguments, timeout=self._crew.settings.timeout)

    # ---- life and death ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        crew = self._crew
        worker = crew.workers.launch(self.number)
        with crew.lock:
            self.worker = worker
            if crew.stopped:
                raise BrokenRunError("the pool was shut down")
        patience = crew.settings.start_timeout
        self.about = worker.call("hello", timeout=patience)
        self.name = f"worker {self.number} on {self.about['node']} (pid {self.about['pid']})"
        check_versions(self.name, self.about)
        try:
            greeting: Greeting = worker.call("start", crew.build, timeout=patience)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        with crew.lock:
            self.greeting = greeting
            crew.changed.notify_all()

    def _failed(self, error: Exception) -> None:
        """Kill the worker, take back what it had not answered, and see whether it may start again."""
        crew = self._crew
        worker = self.worker
        if worker is not None:
            with suppress(Exception):
                worker.kill()
        with crew.lock:
            self.worker = self.loaded = self.answered = self._base = None
            self.life += 1
            self._kept = 0
            self.unneeded.clear()
            self.waiting.extendleft(reversed(self._flying))
            self._flying = {}
            if crew.stopped or crew.broken:
                return
            if crew.restarts < crew.settings.most_restarts:
                crew.restarts += 1
                return
            self.lost = True
            crew.lost(self, error)

    # ---- weights ----------------------------------------------------------------------------------------------------

    def _load(self, update: Update) -> None:
        """Let the worker load weights; one that does not serve them then is started again once."""
        try:
            if update.base is not None and self._base is not update.base:
                self._ask("hold", update.base)
            self._base = update.base
            served = self._ask("load", update.parcel, update.version)
        except _OF_REQUESTS as error:
            self._answer(update, error)
            return
        if served == update.expected:
            self._differed = 0
            self._answer(update)
        elif update.base is not None and not update.settled:
            self._answer(update, DifferentMergeError(f"{self.name}: merges adapters into other bits than the learner"))
        elif self._differed:
            self._answer(update, WeightMismatchError(f"{self.name}: {_differs(update)}"))
        else:
            self._differed += 1
            raise WeightsDifferError(_differs(update))

    def _answer(self, update: Update, error: Exception | None = None) -> None:
        with self._crew.lock:
            self.answered = update
            self.loaded = update if error is None else None
            if error is not None:
                update.error = update.error or error
                if update.settled:
                    self._crew.give_up(error)
            self._crew.changed.notify_all()

    # ---- work -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with self._crew.lock:
            work = [] if self._refusing else self._taken()
            self._flying = dict.fromkeys(work)
        if work and isinstance(work[0], Growing):
            self._grow(work[0])
        elif work:
            self._generate([turn for turn in work if isinstance(turn, Turn)])

    def _taken(self) -> list[Turn | Growing]:
        """What comes next: a tree, or as many turns as may run; what was given up is put away."""
        taken: list[Turn | Growing] = []
        while self.waiting and len(taken) < self._crew.settings.most_running:
            work = self.waiting[0]
            turns = work.turns if isinstance(work, Growing) else [work]
            if turns[0].call.error is not None:
                for turn in turns:
                    self._crew.out(turn)
            elif isinstance(work, Growing) and taken:
                break
            else:
                taken.append(work)
            self.waiting.popleft()
            if taken and isinstance(taken[0], Growing):
                break
        return taken

    def _generate(self, turns: Sequence[Turn]) -> None:
        """One slice of each of these turns. What is wrong with a caller's requests is told to that caller alone."""
        with self._crew.lock:
            asked = [self._asked(turn, self._crew.settings.slice_tokens) for turn in turns]
        clock = time.perf_counter()
        try:
            answer: Answer = self._ask("generate", asked)
        except _OF_REQUESTS as error:
            calls = dict.fromkeys(turn.call for turn in turns)
            if len(calls) > 1:
                for call in calls:
                    self._generate([turn for turn in turns if turn.call is call])
                return
            with self._crew.lock:
                for turn in turns:
                    turn.call.fail(error)
                    self._landed(turn)
            return
        with self._crew.lock:
            self._count(answer, time.perf_counter() - clock)
            # A slice that goes on begins with reading the last token of the one before, which was sampled.
            self.prefilled -= sum(
                bool(turn.tokens) and not request.tokens for turn, request in zip(turns, asked, strict=True)
            )
            for turn, request, completion in zip(turns, asked, answer.said, strict=True):
                self._enter(turn, request, completion)

    def _enter(self, turn: Turn, request: Request, completion: Completion) -> None:
        self._reads(turn.session, request, completion)
        if turn.heard(request, completion) or turn.call.error is not None:
            self._landed(turn)
        else:
            del self._flying[turn]
            self.waiting.append(turn)

    def _landed(self, turn: Turn) -> None:
        del self._flying[turn]
        self._crew.out(turn)

    def _grow(self, growing: Growing) -> None:
        with self._crew.lock:
            asked = [self._asked(turn, None) for turn in growing.turns]
        error: Exception | None = None
        clock = time.perf_counter()
        try:
            answer: Answer = self._ask("grow", asked, growing.paths, growing.growth)
        except _OF_REQUESTS as refused:
            error = refused
        with self._crew.lock:
            if error is None:
                self._count(answer, time.perf_counter() - clock)
                growing.grown(answer, self.number, self.life)
                self.pinned += len(growing.fresh)
                for turn, request, completion in zip(growing.turns, asked, answer.said, strict=False):
                    self._reads(turn.session, request, completion)
                    turn.heard(request, completion)
            self._flying = {}
            for turn in growing.turns:
                if error is not None:
                    turn.call.fail(error)
                self._crew.out(turn)

    def _asked(self, turn: Turn, slice_tokens: int | None) -> Request:
        session = turn.session
        if session.key is None or session.life != self.life:
            session.key, session.life, session.held = next(self._crew.keys), self.life, 0
        return turn.asked(slice_tokens)

    def _reads(self, session: Session, request: Request, completion: Completion) -> None:
        """Note what the worker now holds of a session; a full context leaves it as it was."""
        if completion.tokens:
            self._crew.reread += max(session.known - session.held, 0)
            session.held += len(request.tokens) + len(completion.tokens)
            session.known = max(session.known, session.held)
        elif completion.finish_reason == "cut":
            # Cut before its first token: the worker's session has read what this one has not.
            self._crew.forget(session)

    def _count(self, answer: Answer, seconds: float) -> None:
        self.prefilled += answer.prefilled
        self.taken_over += answer.taken_over
        self.busy += answer.seconds
        self.on_the_way += max(seconds - answer.seconds, 0.0)
        self.sampled += sum(len(completion.tokens) for completion in answer.said)


class WeightsDifferError(RuntimeError):
    """A worker does not serve the weights it was sent."""


def told(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _differs(update: Update) -> str:
    return f"serves other weights than version {update.version}"
