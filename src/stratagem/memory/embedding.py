"""Texts as vectors whose cosine says how alike they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Protocol

import torch
from annotated_types import Ge, MinLen
from jaxtyping import Float
from torch import Tensor

from stratagem.part import Part


class Embedding(Protocol):
    """Anything that makes ``[texts, width]`` floats of texts, always of one width; lengths need not be 1."""

    def __call__(self, texts: Sequence[str], /) -> Float[Tensor, "texts width"]: ...


@dataclass(frozen=True)
class HashedNgrams(Part):
    """Counts of character n-grams, hashed with signs into ``width`` buckets: the same in every process.

    Case and the amount of space do not count. It knows spelling and nothing of meaning: a default that needs no model,
    to be replaced by a sentence encoder where tasks are worded freely.

    width: of the vectors, at least 1.  sizes: characters of an n-gram, each at least 1.
    """

    kind: ClassVar[str] = "embedding"

    width: Annotated[int, Ge(1)] = 1024
    sizes: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (3, 4, 5)

    def __call__(self, texts: Sequence[str], /) -> Float[Tensor, "texts width"]:
        """Float32 counts. A text without any sign that is not space is the zero vector, alike to nothing."""
        counts = torch.zeros(len(texts), self.width)
        for row, text in enumerate(texts):
            words = text.casefold().split()
            padded = f" {' '.join(words)} " if words else ""
            grams = [padded[at : at + size] for size in self.sizes for at in range(len(padded) - size + 1)]
            if grams:
                hashes = torch.tensor([_hash(gram) for gram in grams])
                signs = torch.where(hashes < 0, -1.0, 1.0)
                counts[row].index_add_(0, (hashes & (2**62 - 1)) % self.width, signs)
        return counts


@lru_cache(maxsize=2**16)
def _hash(gram: str) -> int:
    """Signed 64 bits; the top one is the sign a gram counts with."""
    return int.from_bytes(
        hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )
