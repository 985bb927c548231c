"""Rollout workers as Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stratagem.cluster.rollout_worker import RolloutWorker
from stratagem.errors import InputError

Options = Mapping[str, Any]


class RayWorker:
    """An actor (:class:`~.worker.Worker`). create: asks Ray for it."""

    def __init__(self, create: Callable[[], Any]) -> None:
        self._create, self._actor = create, create()
        self._again = True

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """What the actor's method returns."""
        ray = import_ray()
        try:
            try:
                answer = self._asked(method, arguments, timeout)
            except ray.exceptions.RayActorError:
                if not self._again:
                    raise
                # It was put on a node that had left, which Ray notices only by then: it never lived.
                self._again, self._actor = False, self._create()
                answer = self._asked(method, arguments, timeout)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(f"no answer to {method} within {timeout:g} s") from None
        self._again = False
        return answer

    def _asked(self, method: str, arguments: Sequence[Any], timeout: float) -> Any:
        return import_ray().get(getattr(self._actor, method).remote(*arguments), timeout=timeout)

    def kill(self) -> None:
        """End the actor's process."""
        with suppress(Exception):
            import_ray().kill(self._actor, no_restart=True)


@dataclass(frozen=True)
class RayWorkers:
    """Actors with the options of their numbers (:class:`~.worker.Workers`). See :func:`ray_workers`."""

    options: Callable[[int], Options]

    def launch(self, number: int) -> RayWorker:
        """Ask Ray for an actor; it waits for its resources there."""
        actor = import_ray().remote(RolloutWorker).options(**self.options(number))
        return RayWorker(actor.remote)

    def put(self, value: Any) -> Any:
        """A reference into Ray's object store, where a node has the value once for all its actors."""
        return import_ray().put(value)


def ray_workers(options: Options | Callable[[int], Options] | None = None) -> RayWorkers:
    """Rollout workers as Ray actors, on the cluster that this process is connected to.

    options: of each actor, as Ray's ``.options(...)`` takes them (``num_cpus``, ``num_gpus``, ``resources``,
    ``scheduling_strategy`` with a bundle of a placement group); one mapping for all, or a function of the worker's
    number. None: one CPU each. A worker that is started again gets the options of its number again.

    Raises :class:`InputError` where Ray is not installed.
    """
    import_ray()
    given = {"num_cpus": 1} if options is None else options
    return RayWorkers(given if callable(given) else lambda number: given)


def import_ray() -> Any:
    """The module. Raises :class:`InputError` where it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError("a cluster needs ray; install stratagem[cluster]") from None
    return ray
