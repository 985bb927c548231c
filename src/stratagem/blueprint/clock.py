"""A clock that jumps: an event loop whose time passes only by waiting, so that delays cost nothing and are exact."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop that begins at 0 and, when all are asleep, goes on at the moment the first one wakes.

    While something is under way outside of the loop (:meth:`outside`: a thread), time stands still and it really waits.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._outside = 0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    @contextmanager
    def outside(self) -> Iterator[None]:
        """While this is entered, time stands still."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for nothing, moves the clock on."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self._loop._outside:
            return super().select(None)
        self._loop._now += timeout
        return []


@dataclass(frozen=True)
class Timed(Generic[T]):
    """What something came to, and the seconds it took."""

    value: T
    seconds: float


def simulated(work: Callable[[], Coroutine[Any, Any, T]]) -> Timed[T]:
    """Run a coroutine function to its end on a simulated clock, which it finds at 0. Not within a running loop."""

    async def timed() -> Timed[T]:
        value = await work()
        return Timed(value, asyncio.get_running_loop().time())

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(timed())
