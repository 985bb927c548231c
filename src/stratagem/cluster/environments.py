"""Tasks whose environments, and with them verifiers and rewards, live in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from stratagem.cluster.environment_host import Origin
from stratagem.cluster.environment_pool import EnvironmentPool
from stratagem.errors import InputError
from stratagem.skills.task import Skilled
from stratagem.tasks import registry
from stratagem.tasks.task import Environment, Observation, Split, Step, Task

if TYPE_CHECKING:
    from stratagem.tasks.structured import Plan


class RemoteEnvironment(Environment):
    """An environment in a worker. It is made there when it is reset."""

    def __init__(self, pool: EnvironmentPool, origin: Origin) -> None:
        self._pool, self._place = pool, pool.place(origin)

    def reset(self) -> Observation:
        observation: Observation = self._pool.call(self._place, "reset")
        return observation

    def step(self, action: str) -> Step:
        step: Step = self._pool.call(self._place, "step", action)
        return step

    def close(self) -> None:
        """Close it there; a second time does nothing."""
        self._pool.forget(self._place)


class RemoteTask(Task):
    """``of``, whose environments live in the workers of ``pool``. All else is answered by ``of``, in this process.

    Its episodes are those of ``of`` to the letter, whatever becomes of the workers, as long as an environment follows
    from its number and what is said to it. An environment that cannot be made fails when it is reset.
    """

    def __init__(self, of: Task, pool: EnvironmentPool) -> None:
        self.of, self.pool = of, pool
        self.name, self.description = of.name, of.description
        self.max_turns, self.max_new_tokens, self.stop, self.system = (
            of.max_turns,
            of.max_new_tokens,
            of.stop,
            of.system,
        )
        self.reward_names, self.reward_weights = of.reward_names, of.reward_weights

    def member(self, index: int) -> tuple[Task, int]:
        """The rules are those of ``of``."""
        return self.of, index

    def environment(self, split: Split, index: int) -> Environment:
        return RemoteEnvironment(self.pool, Origin(split, index))

    def after(self, split: Split, index: int, attempts: Sequence[str]) -> Environment:
        if type(self.of).after is Task.after:
            return self.of.after(split, index, attempts)
        return RemoteEnvironment(self.pool, Origin(split, index, tuple(attempts)))

    def solution(self, split: Split, index: int) -> Iterator[str]:
        return self.of.solution(split, index)

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        return self.of.corrupted(split, index)

    def candidates(self, split: Split, index: int) -> Sequence[Sequence[str]]:
        return self.of.candidates(split, index)

    def start_states(self, split: Split) -> int | None:
        return self.of.start_states(split)

    def answer(self, text: str) -> str | None:
        return self.of.answer(text)

    def subgoals(self, split: Split, index: int, actions: Sequence[str]) -> list[str]:
        return self.of.subgoals(split, index, actions)

    def plan(self, text: str) -> Plan | None:
        return self.of.plan(text)

    def checkable(self, split: Split, index: int) -> bool:
        return self.of.checkable(split, index)


def remote(
    task: str | Task,
    workers: int,
    *,
    timeout: float = 30.0,
    most_restarts: int = 3,
    options: Callable[[int], Mapping[str, Any]] | None = None,
) -> tuple[Task, EnvironmentPool]:
    """A task with its environments in Ray actors, and their pool, which is to be closed in the end.

    It stands wherever the task does. The skills of a :class:`Skilled` task are shown in this process, where its bank
    changes, around the environments in the workers.

    task: a specification, which every worker reads for itself, or a text task that can be pickled.
    workers: actors, at least 1.  timeout: seconds that a call of an environment may take, above 0; the time-out of the
    world that acts in the task does not count for it.  most_restarts: of one worker in a row.
    options: of the actor of a number, as ``ray.remote`` takes them; None: one processor for each.

    Raises :class:`InputError` for a task that is not played in text or cannot be sent, for numbers out of range, and
    without Ray or a connection to it; :class:`BrokenRunError` when a worker does not start.
    """
    from stratagem.cluster.environment_actor import ray_starter  # which needs Ray

    made: Any = registry.make(task) if isinstance(task, str) else task
    if not isinstance(made, Task):
        raise InputError(
            f"task {getattr(made, 'name', made)!r}: is not played in text (family "
            f"{getattr(made, 'family', 'unknown')}); only text tasks have environments in workers"
        )
    inner, sent = (made.of, made.of) if isinstance(made, Skilled) else (made, task)
    if isinstance(inner, RemoteTask):
        raise InputError(f"task {made.name!r}: its environments are in workers already")
    pool = EnvironmentPool(ray_starter(sent, timeout, options or (lambda number: {})), workers, timeout, most_restarts)
    return around(made, RemoteTask(inner, pool)), pool


def around(task: Task, inner: RemoteTask) -> Task:
    """``inner`` with the skills that ``task`` shows, if it shows any."""
    if not isinstance(task, Skilled):
        return inner
    outside = copy(task)
    outside.of = inner
    return outside
