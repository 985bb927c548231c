"""Processes that learn together: how they meet, let the first one act, agree, and end when one of them does."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from stratagem.errors import BrokenRunError, InputError

T = TypeVar("T")

_DONE = -1


class ShardsLost(BrokenRunError):
    """Other processes of the group are gone, or cannot be reached; a group that is started again may do better."""


@dataclass(frozen=True)
class Place:
    """Where a process stands in its group, and where it meets the others.

    rank: number of this shard, from 0.  size: how many there are.  address, port: where shard 0 listens.
    backend: ``gloo`` on the processor, ``nccl`` on CUDA.  device: where this shard computes, ``cpu`` or ``cuda:N``.
    timeout: seconds that a shard waits for the others, after which they count as lost. They wait, too, while shard 0
    collects a batch or evaluates, so it must be longer than that takes.

    Raises :class:`InputError` for a number out of range, and a device that is not the backend's.
    """

    rank: int
    size: int
    address: str
    port: int
    backend: Literal["gloo", "nccl"] = "gloo"
    device: str = "cpu"
    timeout: float = 1800.0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.rank < self.size:
            raise InputError(f"shard rank = {self.rank} of size = {self.size}: must be from 0 to size - 1")
        if not self.timeout > 0:
            raise InputError(f"shard timeout = {self.timeout}: must be above 0 seconds")
        kinds = {"gloo": "cpu", "nccl": "cuda"}
        if self.backend not in kinds:
            raise InputError(f"shard backend = {self.backend}: must be gloo or nccl")
        if torch.device(self.device).type != kinds[self.backend]:
            raise InputError(f"shard device = {self.device}: {self.backend} is for {kinds[self.backend]}")


class ShardGroup:
    """The group a process belongs to; there is one at a time, made by :func:`joined`.

    What shard 0 does alone it does in :meth:`lead`, so that its result, and an error, too, reach all. They are sent
    pickled: who may join a group runs the same program on data it sends itself, so there is nobody to distrust.

    mesh: of all shards.  leads: whether this is shard 0.  acting: whether shard 0 is acting alone.
    serving: whether the others then follow what it tells them.
    """

    def __init__(self, place: Place, mesh: DeviceMesh) -> None:
        self.place, self.mesh = place, mesh
        self.rank, self.size, self.leads = place.rank, place.size, place.rank == 0
        self.device = torch.device(place.device)
        self.acting = self.serving = False

    def lead(self, action: Callable[[], T], follow: Callable[[int], None] | None = None) -> T:
        """What ``action`` returns on shard 0, on every shard; an error it raises there is raised everywhere.

        follow: what the others do with every word that shard 0 tells them meanwhile.
        """
        if not self.leads:
            while follow is not None and (word := self._hear()) != _DONE:
                follow(word)
            return cast(T, _given(self._send(None)))
        outcome = self._act(action, serving=follow is not None)
        if follow is not None:
            self.tell(_DONE)
        self._send(outcome.sendable())
        return cast(T, _given(outcome))

    def _act(self, action: Callable[[], object], serving: bool) -> _Outcome:
        self.acting, self.serving = True, serving
        try:
            return _Outcome(result=action())
        except Exception as error:
            return _Outcome(error=error)
        finally:
            self.acting = self.serving = False

    def _send(self, outcome: _Outcome | None) -> _Outcome:
        """From shard 0 to all."""
        place = [outcome]
        dist.broadcast_object_list(place, 0, device=torch.device("cpu"))
        [found] = place
        assert found is not None
        return found

    def tell(self, word: int) -> None:
        """Give the others, which follow, a number to act on. Only shard 0 may, and only while it leads."""
        dist.broadcast(torch.tensor([word]), 0)

    def _hear(self) -> int:
        word = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(word, 0)
        return int(word)

    def any(self, here: bool) -> bool:
        """Whether it is so on one shard at least."""
        found = torch.tensor([int(here)])
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def rows(self, mine: Tensor, counts: list[int]) -> Tensor:
        """The rows of all shards, one shard's after the other's, of which ``counts`` says how many each has.

        Gradients flow to the own rows alone: where every shard computes the same loss of all rows, the sum of the
        gradients that the shards then have is that of the loss.
        """
        rows: Tensor = _Gathered.apply(mine, counts, self.rank)  # type: ignore[no-untyped-call]
        return rows


@dataclass(frozen=True)
class _Outcome:
    result: object = None
    error: Exception | None = None

    def sendable(self) -> _Outcome:
        """As it is, or with an error that says the same where its own cannot be pickled."""
        if self.error is None:
            return self
        try:
            pickle.loads(pickle.dumps(self.error))
        except Exception:
            return _Outcome(error=BrokenRunError(f"{type(self.error).__name__} on shard 0: {self.error}"))
        return self


def _given(outcome: _Outcome) -> object:
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.start, ctx.end = sum(counts[:rank]), sum(counts[: rank + 1])
        padded = mine.new_zeros(max(counts), *mine.shape[1:])
        padded[: len(mine)] = mine
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        return torch.cat([piece[:count] for piece, count in zip(pieces, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = gradients
        return gradient[ctx.start : ctx.end], None, None


@contextmanager
def joined(place: Place) -> Iterator[ShardGroup]:
    """The group, once all its processes are there; left at the end of the block.

    Raises :class:`InputError` when this process is in a group already or lacks the device, :class:`ShardsLost` when
    the others do not come within the timeout, or are lost later.
    """
    if dist.is_initialized():
        raise InputError("this process belongs to a process group already; a shard needs one of its own")
    device = torch.device(place.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"shard device = {place.device}: this machine has no CUDA device")
        torch.cuda.set_device(device)
    with _naming_the_lost(place):
        dist.init_process_group(
            "gloo" if place.backend == "gloo" else "cpu:gloo,cuda:nccl",
            init_method=f"tcp://{place.address}:{place.port}",
            rank=place.rank,
            world_size=place.size,
            timeout=timedelta(seconds=place.timeout),
        )
        try:
            yield ShardGroup(place, init_device_mesh(device.type, (place.size,)))
        finally:
            dist.destroy_process_group()


@contextmanager
def _naming_the_lost(place: Place) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = _reason(error, place)
        if reason is None:
            raise
        where = f"{place.address}:{place.port}"
        raise ShardsLost(f"shard {place.rank} of {place.size} lost the others at {where}: {reason}") from error


def _reason(error: RuntimeError, place: Place) -> str | None:
    """How the others were lost, None where they were not: gloo has no kind of errors of its own, only words."""
    if isinstance(error, BrokenRunError):
        return None
    said = str(error).lower()
    if "timed out" in said or "timeout" in said:
        return f"one did not answer within {place.timeout:g} seconds"
    if isinstance(error, dist.DistError) or "gloo" in said or "connection" in said:
        return "the connection to one is closed"
    return None
