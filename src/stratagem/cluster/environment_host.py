"""What a worker process does for environments that live in it: makes them, leads them, and calls them under a watch."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from stratagem.tasks.task import Environment, Split, Task
from stratagem.watched import Outcome, Watch


@dataclass(frozen=True, slots=True)
class Origin:
    """How an environment is made. attempts: those it begins behind (:meth:`Task.after`); None: it begins afresh."""

    split: Split
    index: int
    attempts: tuple[str, ...] | None = None

    def make(self, task: Task) -> Environment:
        """The environment, made in this process."""
        if self.attempts is None:
            return task.environment(self.split, self.index)
        return task.after(self.split, self.index, self.attempts)


class Call(NamedTuple):
    """What a worker is asked to do.

    environment: number of the environment.  method, action: of its call; only a step has an action.
    origin: how to make it, where the worker does not have it; None where it does.
    history: what was said to it before, to be said again first: actions, and None for a reset.
    """

    environment: int
    method: Literal["reset", "step", "close"]
    action: str | None = None
    origin: Origin | None = None
    history: tuple[str | None, ...] = ()


class Answer(NamedTuple):
    """What an environment returned, pickled, or the failure that it was; both None where nothing came of it."""

    value: bytes | None = None
    failure: str | None = None


class Reply(NamedTuple):
    """What came of a call.

    led: the answers to its history.  hung: whether it, or its history, took too long and may still be running.
    skipped: whether it was not made, since an earlier one hung.  held: whether the worker has the environment now.
    """

    answer: Answer
    led: tuple[Answer, ...] = ()
    hung: bool = False
    skipped: bool = False
    held: bool = True


class WorkerLost(Exception):
    """A worker died, or was given up. hung: it did not move within the time that a call may take."""

    def __init__(self, reason: str, hung: bool = False) -> None:
        super().__init__(reason)
        self.hung = hung


class Worker(Protocol):
    """A process with a :class:`Host`."""

    def play(self, calls: Sequence[Call]) -> tuple[list[Reply], float]:
        """What came of each call, and the seconds they took. Raises :class:`WorkerLost`."""
        ...

    def kill(self) -> None:
        """End the process and all that runs in it; nothing happens where it has ended."""
        ...


class Host:
    """The environments of one worker. Calls are made one after another, in a thread that is always the same one.

    task: whose environments they are.  timeout: seconds that a call of an environment may take, above 0.
    finished: calls that ended so far, those of histories included; it may be read from another thread.
    """

    def __init__(self, task: Task, timeout: float) -> None:
        self.task, self.finished = task, 0
        self._watch = Watch(timeout)
        self._environments: dict[int, Environment] = {}

    def play(self, calls: Sequence[Call]) -> tuple[list[Reply], float]:
        """As :meth:`Worker.play`. Once a call hung the others are skipped: this process is to be ended."""
        began = time.perf_counter()
        led: dict[int, Reply] = {call.environment: self._lead(call) for call in calls if call.origin is not None}
        ready = [call for call in calls if call.environment not in led or led[call.environment].held]
        outcomes = self._watch.run([partial(self._counted, partial(self._do, call)) for call in ready])
        made = {call.environment: outcome for call, outcome in zip(ready, outcomes, strict=True)}
        replies = [self._reply(call, led.get(call.environment), made.get(call.environment)) for call in calls]
        return replies, time.perf_counter() - began

    def close(self) -> None:
        """Close all environments; one that raises is no reason not to close the others."""
        self._watch.run([environment.close for environment in self._environments.values()])
        self._environments.clear()
        self._watch.close()

    def _lead(self, call: Call) -> Reply:
        """Make an environment, and bring it to where it was."""
        steps: list[Callable[[], Answer | None]] = [partial(self._make, call)]
        steps += [partial(self._say, call.environment, action) for action in call.history]
        answers: list[Answer] = []
        for number, step in enumerate(steps):
            outcome = self._watch.run([partial(self._counted, step)])[0]
            answer = outcome.value or Answer(failure=outcome.failure)
            if outcome.hung or outcome.value is _SKIPPED or (number == 0 and outcome.failure is not None):
                return Reply(answer, tuple(answers), outcome.hung, outcome.value is _SKIPPED, held=False)
            if number:
                answers.append(answer)
        return Reply(Answer(), tuple(answers))

    def _make(self, call: Call) -> None:
        assert call.origin is not None
        self._environments[call.environment] = call.origin.make(self.task)

    def _do(self, call: Call) -> Answer:
        if call.method == "close":
            self._environments.pop(call.environment).close()
            return Answer()
        return self._say(call.environment, call.action)

    def _say(self, number: int, action: str | None) -> Answer:
        """Reset, or step; pickled here, where what cannot be is the failure of one call."""
        environment = self._environments[number]
        value: Any = environment.reset() if action is None else environment.step(action)
        return Answer(pickle.dumps(value))

    def _counted(self, call: Callable[[], Answer | None]) -> Answer | None:
        """A call, unless one hung before."""
        if self._watch.abandoned:
            return _SKIPPED
        try:
            return call()
        finally:
            self.finished += 1

    def _reply(self, call: Call, led: Reply | None, made: Outcome[Answer | None] | None) -> Reply:
        if made is None:
            assert led is not None
            return led
        answers = () if led is None else led.led
        held = call.environment in self._environments
        skipped = made.value is _SKIPPED
        return Reply(made.value or Answer(failure=made.failure), answers, made.hung, skipped, held)


_SKIPPED = Answer()
