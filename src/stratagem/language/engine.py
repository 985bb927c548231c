"""What generates text for rollouts: sessions that grow by tokens, requests, completions, and proof of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from stratagem.language.sampling import SamplingParams
from stratagem.sampling.growth import Growth

FinishReason = Literal["stop", "length", "cut"]


@dataclass(frozen=True, slots=True)
class Request:
    """One turn to sample.

    session: which conversation.
    tokens: what is new in it since the engine's last answer: the opening, or the next observation. Never what the
        engine itself sampled. May be empty once the session holds something.
    seed: everything random in this turn follows from it.
    role: whose turn it is, where each role may be another policy's.
    said: how the turn began, when this request only goes on with it: sampled before, and in the session already or at
        the end of ``tokens``. Stop strings and the completion's text are of the whole turn, ``max_new_tokens`` is not.
    """

    session: int
    tokens: Sequence[int]
    seed: int
    params: SamplingParams
    said: Sequence[int] = ()
    role: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled for one request.

    tokens: exactly the sampled ids, end token and stop string included; they are part of the session from now on.
    logp: log-probability of each, under the distribution actually sampled from (temperature, top-k, top-p included).
    finish_reason: "stop" (end token or stop string) or "length" (``max_new_tokens``, or the model's context is full;
        a turn whose new tokens already fill the context samples nothing and leaves the session as it was), or "cut" by
        the rules of a tree (:class:`TreeEngine`).
    version: of the weights that sampled; of several, of the last.
    versions: of each token, when that was not one and the same.
    text: the turn's tokens decoded, without the end token and other special tokens; a stop string stays.
    """

    tokens: list[int]
    logp: list[float]
    finish_reason: FinishReason
    version: int
    text: str
    versions: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A turn of a path of a tree.

    path: its number.  session: which holds it.  seed: everything random in it follows from that, after its first tokens
    where it came off another path.
    """

    path: int
    session: int
    seed: int
    completion: Completion


class WeightSource(Protocol):
    """Whoever holds the weights an engine is to serve, under plain Hugging Face names."""

    def weights(self) -> Iterator[tuple[str, Tensor]]: ...


class Engine(Protocol):
    """Batched generation in sessions.

    A session is a conversation as a growing list of token ids: new tokens in, sampled tokens out, and both become its
    context; nothing is ever decoded and encoded again. What a request samples depends on its seed, its session's
    tokens and the weights alone, not on the other requests of the batch (up to rounding of the matrix products).
    """

    @property
    def version(self) -> int:
        """Of the weights being served."""

    def open(self, count: int) -> list[int]:
        """Start ``count`` empty sessions. Raises :class:`InputError` beyond the engine's limit."""

    def close(self, sessions: Sequence[int]) -> None:
        """Forget these sessions and free what they hold."""

    @property
    def prefilled(self) -> int:
        """Tokens computed so far that were read and not sampled."""

    @property
    def taken_over(self) -> int:
        """Tokens so far that a session read and another one had computed."""

    def keeping(self, most: int) -> AbstractContextManager[None]:
        """While it lasts, what up to ``most`` closed sessions computed stays, for new ones that begin alike."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One turn of each of these sessions, in the order of the requests."""

    def load_weights(self, policy: WeightSource, version: int) -> None:
        """Serve the policy's weights from now on, open sessions included.

        Raises :class:`WeightMismatchError` unless the fingerprint of every tensor served equals the policy's.
        """


@runtime_checkable
class TreeEngine(Protocol):
    """An engine that shows its distributions while it samples."""

    @property
    def vocabulary(self) -> int:
        """Tokens it chooses among."""

    def grow(self, requests: Sequence[Request], paths: Sequence[int], growth: Growth) -> list[Written]:
        """One turn of each of these paths, and of all that come off them meanwhile, which get sessions of their own.

        Before each token ``growth`` is shown what it is drawn from, and decides. The requests' own paths come first, in
        their order.
        """


_Method = TypeVar("_Method", bound=Callable[..., Any])


def exclusive(method: _Method) -> _Method:
    """A method of an engine with a ``_lock``: it waits until no other thread is in one of the engine's.

    So whoever has new weights may load them while others play: between two of their turns, and never within one.
    """

    @wraps(method)
    def alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    return cast(_Method, alone)


class WeightMismatchError(RuntimeError):
    """The engine does not serve the weights it was given."""


def fingerprint(tensor: Tensor) -> int:
    """A 64-bit checksum of the bits of a tensor and their order; equal on every device.

    sum_i (b_i + 1) * (2 i + 1) modulo 2^64 over the elements' bit patterns b_i.
    """
    words = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    total, start = 0, 0
    for piece in tensor.detach().reshape(-1).view(words).split(2**22):
        odd = torch.arange(start, start + len(piece), device=piece.device) * 2 + 1
        total += int(((piece.to(torch.int64) + 1) * odd).sum())
        start += len(piece)
    return total % 2**64


@torch.no_grad()
def copy_weights(source: WeightSource, served: Mapping[str, Tensor]) -> None:
    """Copy every tensor of ``source`` into the ``served`` one of that name and prove by fingerprints that it is there.

    Raises :class:`WeightMismatchError` naming the first tensor that is absent on one side or differs afterwards.
    """
    expected: dict[str, int] = {}
    for name, tensor in source.weights():
        if name not in served or served[name].shape != tensor.shape:
            raise WeightMismatchError(f"the engine has no tensor {name} of shape {tuple(tensor.shape)}")
        converted = tensor.to(device=served[name].device, dtype=served[name].dtype)
        served[name].copy_(converted)
        expected[name] = fingerprint(converted)
    for name, tensor in served.items():
        if name not in expected:
            raise WeightMismatchError(f"the policy gave no weights for {name}")
        if fingerprint(tensor) != expected[name]:
            raise WeightMismatchError(f"{name} differs from the policy's after loading")
