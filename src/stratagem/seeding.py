"""Seeds: every random choice is numbered, and its number with the run's one seed decides it."""

from __future__ import annotations

import hashlib
import operator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Constants of splitmix64 (Steele, Lea, Flood 2014), as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for the choice named by ``path`` in the run of ``seed``; the same in every process.

    Choices are numbered instead of drawn from a stream, so that what was decided before does not matter: a resumed
    run needs no generator state.
    """
    # A number counts by its value, whatever integer type a library gave it.
    named = (part if isinstance(part, str) else operator.index(part) for part in (seed, *path))
    digest = hashlib.blake2b(repr(tuple(named)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A torch generator for the choice named by ``path``."""
    return torch.Generator().manual_seed(derive(seed, *path))


def numpy_generator(seed: int, *path: int | str) -> np.random.Generator:
    """A numpy generator for the choice named by ``path``."""
    return np.random.default_rng(derive(seed, *path))


def seed_torch(seed: int, *path: int | str) -> None:
    """Set torch's own generators (dropout and the like) for the choice named by ``path``.

    ``torch.manual_seed`` would do, but it costs a tenth of a millisecond where no GPU has been touched.
    """
    number = derive(seed, *path)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def uniform(seeds: Int[Tensor, "*#batch"], counters: Int[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """A number in [0, 1) for every (seed, counter), in float64: the same in every process, batch and order.

    Counter-based: splitmix64's finaliser on the seed, then on the result plus (counter + 1) golden-ratio steps.
    """
    return _shift(scrambled(seeds, counters), 11).to(torch.float64) * 2.0**-53


def scrambled(seeds: Int[Tensor, "*#batch"], counters: Int[Tensor, "*#batch"]) -> Int[Tensor, "*batch"]:
    """64 bits for every (seed, counter) that look like chance: what :func:`uniform` makes its numbers of."""
    return _mix(_mix(seeds + _GOLDEN) + (counters + 1) * _GOLDEN)


def _mix(bits: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    bits = (bits ^ _shift(bits, 30)) * _MIX_1
    bits = (bits ^ _shift(bits, 27)) * _MIX_2
    return bits ^ _shift(bits, 31)


def _shift(bits: Int[Tensor, "*batch"], places: int) -> Int[Tensor, "*batch"]:
    """Logical right shift, which torch's shift of signed integers is not."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
