"""Texts that say nearly the same, found without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BUCKETS = 512
"""Pairs of neighbouring characters are counted in so many."""


def first_similar(texts: Iterable[str], ratio: float) -> list[int]:
    """For every text, the place of the one whose cluster it falls into; its own when it begins a cluster.

    Clusters are greedy: in their order, a text joins the first cluster whose first member it resembles,
    ``similarity(text, member) >= ratio``, and begins another when there is none.

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


def similarity(text: str, other: str) -> float:
    """``2 L / T``, ``L`` the characters of the longest common subsequence, ``T`` of both texts; 1 for two empty ones.

    The ratio of ``difflib.SequenceMatcher`` counts a common subsequence that need not be the longest, and in texts of
    200 characters or more passes over frequent ones; it is never larger.
    """
    return _similarity(text, _Member(other))


class _Member:
    """A text to compare others with, as the places of each of its characters: bit ``i`` for place ``i``."""

    def __init__(self, text: str) -> None:
        self.length, self.places = len(text), dict[str, int]()
        for place, character in enumerate(text):
            self.places[character] = self.places.get(character, 0) | 1 << place


def _similarity(text: str, member: _Member) -> float:
    total = len(text) + member.length
    return 2 * _common(text, member) / total if total else 1.0


def _common(text: str, member: _Member) -> int:
    """Length of the longest common subsequence, all places of the member at once.

    After each character of the text, the zeros among the bits below ``i`` are the length for the first ``i`` characters
    of the member (Hyyro, "Bit-parallel LCS-length computation revisited", 2004).
    """
    every = (1 << member.length) - 1
    rows = every
    for character in text:
        matched = rows & member.places.get(character, 0)
        rows = (rows + matched | rows - matched) & every
    return member.length - rows.bit_count()


class _Clusters:
    """First members of clusters, what is counted in them, and their places."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._places: list[int] = []
        self._members: list[_Member] = []
        self._lengths = np.zeros(64, dtype=np.int64)
        self._pairs = np.zeros((64, BUCKETS), dtype=np.int32)

    def join(self, text: str, place: int) -> int:
        """Place of the first member that the text resembles, or its own."""
        pairs = _pairs(text)
        for number in map(int, self._candidates(len(text), pairs)):
            if _similarity(text, self._members[number]) >= self._ratio:
                return self._places[number]
        self._begin(text, pairs, place)
        return place

    def _candidates(self, length: int, pairs: NDArray[np.int32]) -> NDArray[np.int64]:
        """Clusters whose first member may be similar enough.

        With ``L`` common characters of ``T`` in all, ``L`` is at most the shorter length; and of the pairs of
        neighbours at least ``3 L - T - 1`` are in both texts, since a character that is not common parts at most two
        pairs of its own text and one of the other.
        """
        count = len(self._places)
        lengths = self._lengths[:count]
        total = lengths + length
        needed = self._ratio * total / 2 - 1e-6
        near = np.flatnonzero(np.minimum(lengths, length) >= needed)
        common = np.minimum(self._pairs[near], pairs).sum(1)
        enough: NDArray[np.int64] = near[common >= 3 * needed[near] - total[near] - 1]
        return enough

    def _begin(self, text: str, pairs: NDArray[np.int32], place: int) -> None:
        count = len(self._places)
        if count == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._pairs = np.concatenate([self._pairs, np.zeros_like(self._pairs)])
        self._lengths[count], self._pairs[count] = len(text), pairs
        self._members.append(_Member(text))
        self._places.append(place)


def _pairs(text: str) -> NDArray[np.int32]:
    """How many pairs of neighbouring characters fall into each bucket."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.int64)
    return np.bincount((31 * codes[:-1] + codes[1:]) % BUCKETS, minlength=BUCKETS).astype(np.int32)
