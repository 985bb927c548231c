"""What a run on a cluster consists of: how many processes of each kind, and how far rollouts may run ahead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from stratagem.errors import InputError, unknown

LOCAL = "local"
"""The address of a cluster that is started on this machine for the run, and ends with it."""


@dataclass(frozen=True)
class Cluster:
    """The processes of a run on Ray.

    address: of a running cluster (``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``), or ``local``.
    learners: processes that share the policy's weights, gradients and optimizer (FSDP2); at least 1.
    rollout_workers: processes that sample text, each with an engine of its own; at least 1.
    environment_workers: processes that hold environments and verifiers; 0: those live with the first learner.
    staleness: batches that rollouts may be ahead of the learner; 0: none, with the numbers of a run in one process.
    slice_tokens: a turn is sampled so many tokens at a time, and new weights may come between two slices; None: turns
        are sampled whole.
    restarts: of dead processes of each kind, before the run gives up.
    silence: seconds after which a learner or rollout worker that answers nothing is taken for dead and started again.
    offload: keep weights, gradients and optimizer in main memory while they are not computed with (GPUs only).

    Raises :class:`InputError` for a number out of range.
    """

    address: str = LOCAL
    learners: int = 1
    rollout_workers: int = 1
    environment_workers: int = 0
    staleness: int = 0
    slice_tokens: int | None = None
    restarts: int = 3
    silence: float = 600.0
    offload: bool = False

    def __post_init__(self) -> None:
        if not self.address:
            raise InputError("cluster address '': must be HOST:PORT, ray://HOST:PORT, auto or local")
        least = {"learners": 1, "rollout_workers": 1, "environment_workers": 0, "staleness": 0, "restarts": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InputError(f"cluster {name} = {getattr(self, name)}: must be at least {bound}")
        if not 0 < self.silence < math.inf:
            raise InputError(f"cluster silence = {self.silence}: must be above 0 seconds and finite")
        if self.slice_tokens is not None and self.slice_tokens < 1:
            raise InputError(f"cluster slice_tokens = {self.slice_tokens}: must be at least 1 token, or None")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What ``dataclasses.asdict`` made of one. Raises :class:`InputError` for a field that there is not."""
        known = list(cls.__dataclass_fields__)
        for name in data:
            if name not in known:
                raise unknown("field of a cluster", name, known)
        return cls(**data)

    @property
    def processes(self) -> int:
        """All of them."""
        return self.learners + self.rollout_workers + self.environment_workers
