"""How a pool of engines works: what it asks at once, how long it waits, and how often it starts a worker again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stratagem.errors import InputError


@dataclass(frozen=True)
class PoolSettings:
    """Settings of a pool.

    most_running: turns that a worker samples side by side; others wait, first come first served.
    slice_tokens: tokens of a turn after which waiting turns and new weights have their go, and it waits again; None:
        turns are sampled whole.
    max_sessions: most sessions open at once for each worker; its engine must hold as many.
    timeout: seconds that a worker may take for an answer; after that it is hung, and killed.
    start_timeout: seconds that it may take to start, the wait for its resources included.
    most_restarts: of all workers together, after which a worker that dies stays away.

    Raises :class:`InputError` for a number below 1 (``most_restarts``: 0) and a time that is not above 0.
    """

    most_running: int = 256
    slice_tokens: int | None = None
    max_sessions: int = 4096
    timeout: float = 600.0
    start_timeout: float = 600.0
    most_restarts: int = 3

    def __post_init__(self) -> None:
        least = {"most_running": 1, "slice_tokens": 1, "max_sessions": 1, "most_restarts": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InputError(f"pool.{name} must be at least {bound}, got {value}")
        for name in ("timeout", "start_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"pool.{name} must be above 0 and finite, got {getattr(self, name)}")
