"""Workers in this process: the pool's own logic without Ray, for tests and for a look at what happens."""

from __future__ import annotations

import pickle
import threading
from typing import Any

from stratagem.cluster.rollout_worker import RolloutWorker

_BUILDING = threading.Lock()
"""One model at a time: transformers changes torch's initializers for all threads while it loads one."""


class LocalWorker:
    """A worker in the thread that calls it; what goes in and out is copied, as it is between processes.

    ``timeout`` is not kept: nobody can end a thread.
    """

    def __init__(self) -> None:
        self.served: RolloutWorker | None = RolloutWorker()

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """What the method returns."""
        if self.served is None:
            raise ConnectionError("the worker was killed")
        if method == "start":  # What builds the engine stays as it is: a function may be one that cannot be pickled.
            with _BUILDING:
                return self.served.start(*arguments)
        return _copied(getattr(self.served, method)(*_copied(arguments)))

    def kill(self) -> None:
        """Forget the engine."""
        self.served = None


class LocalWorkers:
    """Workers in this process (:class:`~.worker.Workers`)."""

    def launch(self, number: int) -> LocalWorker:
        """A new one."""
        return LocalWorker()

    def put(self, value: Any) -> Any:
        """A copy."""
        return _copied(value)


def _copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
