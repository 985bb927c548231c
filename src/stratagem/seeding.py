"""Seeds: every random choice is numbered, and its number with the run's one seed decides it."""

from __future__ import annotations

import hashlib
import operator

import numpy as np
import torch


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
