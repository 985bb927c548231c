"""A graph of tasks: each runs when those it comes after are done, and what does not wait runs at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from stratagem.blueprint.clock import simulated
from stratagem.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class TaskGraph:
    """Tasks by name, each with those it comes after.

    Raises :class:`InputError` for one that is not there, and naming the tasks of a cycle.
    """

    after: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for name, earlier in self.after.items():
            for other in earlier:
                if other not in self.after:
                    raise InputError(f"{name!r} comes after {other!r}, which is not there")
        try:
            TopologicalSorter(self.after).prepare()
        except CycleError as error:
            raise InputError(f"tasks wait for each other: {' -> '.join(error.args[1])}") from None

    async def run(self, start: Callable[[str], Awaitable[T]], workers: int | None = None) -> dict[str, T]:
        """Await ``start(name)`` for every task, at most ``workers`` at the same time; results in order of completion.

        Of tasks that are ready, the one declared first begins first. When one raises, the others are cancelled.
        """
        if workers is not None and workers < 1:
            raise InputError(f"workers = {workers}: must be at least 1")
        done: dict[str, T] = {}
        running: dict[asyncio.Future[T], str] = {}
        waiting = list(self.after)
        try:
            while waiting or running:
                ready = [name for name in waiting if all(other in done for other in self.after[name])]
                for name in ready[: None if workers is None else workers - len(running)]:
                    waiting.remove(name)
                    running[asyncio.ensure_future(start(name))] = name
                ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for future in [future for future in running if future in ended]:
                    done[running.pop(future)] = future.result()
        finally:
            for future in running:
                future.cancel()
        return done

    def makespan(self, durations: Mapping[str, float], workers: int | None = None) -> float:
        """Time until all are done, when each takes as long as ``durations`` says; by the same scheduler, simulated."""

        async def take(name: str) -> None:
            await asyncio.sleep(durations[name])

        return simulated(lambda: self.run(take, workers)).seconds
