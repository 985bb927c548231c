"""Texts that say nearly the same, found without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

BUCKETS = 512
"""Pairs of neighbouring characters are counted in so many."""


def first_similar(texts: Iterable[str], ratio: float) -> list[int]:
    """For every text, the place of the one whose cluster it falls into; its own when it begins a cluster.

    Clusters are greedy: in their order, a text joins the first cluster whose first member it resembles, ``difflib``'s
    ``SequenceMatcher(None, text, member).ratio() >= ratio``, and begins another when there is none. The ratio is twice
    the characters in matching blocks over all characters of both; in texts of 200 characters or more ``difflib`` looks
    for blocks around rare characters only.

    The comparison is made only where lengths and pairs of neighbouring characters leave it open, so few are; the result
    is that of making all of them.

    ratio: in (0, 1].
    """
    clusters, found, known = _Clusters(ratio), [], dict[str, int]()
    for place, text in enumerate(texts):
        if text not in known:
            known[text] = clusters.join(text, place)
        found.append(known[text])
    return found


class _Clusters:
    """First members of clusters, what is counted in them, and their places."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._places: list[int] = []
        self._members: list[SequenceMatcher[str]] = []
        self._lengths = np.zeros(64, dtype=np.int64)
        self._pairs = np.zeros((64, BUCKETS), dtype=np.int32)

    def join(self, text: str, place: int) -> int:
        """Place of the first member that the text resembles, or its own."""
        pairs = _pairs(text)
        for number in self._candidates(len(text), pairs):
            self._members[number].set_seq1(text)
            if self._members[number].ratio() >= self._ratio:
                return self._places[number]
        self._begin(text, pairs, place)
        return place

    def _candidates(self, length: int, pairs: NDArray[np.int32]) -> NDArray[np.int64]:
        """Clusters whose first member may be similar enough.

        With ``M`` matched characters of ``T`` in all, ``M`` is at most the shorter length; and of the pairs of
        neighbours at least ``3 M - T - 1`` are in both texts, since a character that is not matched parts at most two
        pairs of its own text and one of the other.
        """
        count = len(self._places)
        lengths = self._lengths[:count]
        total = lengths + length
        matched = self._ratio * total / 2 - 1e-6
        near = np.flatnonzero(np.minimum(lengths, length) >= matched)
        common = np.minimum(self._pairs[near], pairs).sum(1)
        return near[common >= 3 * matched[near] - total[near] - 1]

    def _begin(self, text: str, pairs: NDArray[np.int32], place: int) -> None:
        count = len(self._places)
        if count == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._pairs = np.concatenate([self._pairs, np.zeros_like(self._pairs)])
        self._lengths[count], self._pairs[count] = len(text), pairs
        self._members.append(SequenceMatcher(None, "", text))
        self._places.append(place)


def _pairs(text: str) -> NDArray[np.int32]:
    """How many pairs of neighbouring characters fall into each bucket."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    return np.bincount((31 * codes[:-1] + codes[1:]) % BUCKETS, minlength=BUCKETS).astype(np.int32)
