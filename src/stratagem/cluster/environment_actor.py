"""Environments in Ray actors."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stratagem.cluster.environment_host import Call, Host, Reply, WorkerLost
from stratagem.errors import BrokenRunError, InputError
from stratagem.tasks.registry import make
from stratagem.tasks.task import Task

try:
    import ray
    from ray import cloudpickle
    from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
except ImportError:
    raise InputError("environments in workers need Ray: pip install 'stratagem[cluster]'") from None

START_SECONDS = 300.0
"""An actor may have to wait for its place in the cluster, and for a node to come up."""

GRACE_SECONDS = 5.0
"""So much longer than a call may take is waited for its worker to say that it hung."""


class EnvironmentActor:
    """A :class:`Host` as Ray has it; one thread plays, another one is left to say how far that is."""

    def __init__(self, source: str | bytes, timeout: float) -> None:
        self._source, self._timeout = source, timeout

    def ready(self) -> None:
        """Make the task. Raises what that raises."""
        task: Any = make(self._source) if isinstance(self._source, str) else pickle.loads(self._source)
        self._host = Host(task, self._timeout)

    def play(self, calls: Sequence[Call]) -> tuple[list[Reply], float]:
        """As :meth:`Host.play`."""
        return self._host.play(calls)

    def finished(self) -> int:
        """As :class:`Host` counts it."""
        return self._host.finished


class RayWorker:
    """A worker in a Ray actor of its own.

    source: specification of the task, or the task, pickled.  timeout: seconds that a call of an environment may take.
    options: of the actor, as ``ray.remote`` takes them (``num_cpus``, ``resources``, ``scheduling_strategy``).

    Raises :class:`InputError` when the task is not to be had in a worker, and :class:`BrokenRunError` when there is no
    place for the actor within five minutes or it dies.
    """

    def __init__(self, source: str | bytes, timeout: float, options: Mapping[str, Any]) -> None:
        self._limit = timeout + GRACE_SECONDS
        # Not restarted by Ray: the pool does that, and knows by it that the environments are gone.
        settings = {"num_cpus": 1, **options, "max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0}
        actor: Any = ray.remote(EnvironmentActor)
        create = actor.options(**settings).remote
        self._actor = create(source, timeout)
        try:
            try:
                ray.get(self._actor.ready.remote(), timeout=START_SECONDS)
            except RayActorError:
                # It was put on a node that had left, which Ray notices only by then: it never lived.
                self._actor = create(source, timeout)
                ray.get(self._actor.ready.remote(), timeout=START_SECONDS)
        except RayTaskError as error:
            self.kill()
            cause = error.cause
            raise InputError(f"the task cannot be made in a worker: {type(cause).__name__}: {cause}") from None
        except GetTimeoutError:
            self.kill()
            raise BrokenRunError(f"an environment worker did not start within {START_SECONDS:g} s") from None
        except RayError as error:
            self.kill()
            raise BrokenRunError(f"an environment worker did not start: {_line(error)}") from None
        self._finished = 0

    def play(self, calls: Sequence[Call]) -> tuple[list[Reply], float]:
        """As :meth:`Worker.play`: lost is also one in which no call ends for longer than a call may take."""
        try:
            reply = self._actor.play.remote(list(calls))
            while not ray.wait([reply], timeout=self._limit)[0]:
                finished: int = ray.get(self._actor.finished.remote(), timeout=GRACE_SECONDS)
                if finished == self._finished:
                    raise WorkerLost("its call does not end", hung=True)
                self._finished = finished
            replies: tuple[list[Reply], float] = ray.get(reply)
        except GetTimeoutError:
            raise WorkerLost("it does not move", hung=True) from None
        except RayActorError as error:
            raise WorkerLost(_line(error)) from None
        except RayError as error:
            raise WorkerLost(f"{type(error).__name__}: {_line(error)}") from None
        return replies

    def kill(self) -> None:
        """As :meth:`Worker.kill`."""
        if ray.is_initialized():  # Without a connection there is no actor either.
            ray.kill(self._actor)


def ray_starter(
    task: str | Task, timeout: float, options: Callable[[int], Mapping[str, Any]]
) -> Callable[[int], RayWorker]:
    """What starts the workers of a task, given by its specification or itself.

    A task itself is pickled as it is now: what becomes of it here later does not reach the workers, nor the other way.
    Raises :class:`InputError` for one that cannot be pickled, and without a connection to a cluster.
    """
    if not ray.is_initialized():
        raise InputError("environments in workers: there is no connection to a Ray cluster; call ray.init() first")
    source: str | bytes
    if isinstance(task, str):
        source = task
    else:
        try:
            source = cloudpickle.dumps(task)
        except Exception as error:
            raise InputError(
                f"task {task.name!r} cannot be sent to workers ({type(error).__name__}: {error}); give it by its "
                "specification"
            ) from None
    return lambda number: RayWorker(source, timeout, options(number))


def _line(error: BaseException) -> str:
    """The first line of a long message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
