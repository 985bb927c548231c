"""What the pool asks of whoever runs workers: start one, call its methods, kill it, and share large values with all."""

from __future__ import annotations

from typing import Any, Protocol


class Worker(Protocol):
    """A :class:`~.rollout_worker.RolloutWorker` somewhere. One thread calls it, one method at a time."""

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """What the method returns.

        Raises what the method raised, as itself; ``TimeoutError`` without an answer in ``timeout`` seconds; anything
        else when the worker is gone.
        """

    def kill(self) -> None:
        """End it at once, whatever it does; nothing when it is gone."""


class Workers(Protocol):
    """Where workers come from."""

    def launch(self, number: int) -> Worker:
        """Begin to start worker ``number``, anew where it was killed; does not wait until it runs."""

    def put(self, value: Any) -> Any:
        """A copy of this value as it is now, to be handed to ``call`` as an argument, where it becomes the value."""
