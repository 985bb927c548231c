"""Which sequences to read first, so that what several begin with is computed once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

LEAST = 16
"""Fewer common tokens than these are not worth a forward pass of their own, or a copy."""


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle)
    return low


@dataclass
class Known:
    """Sequences that were read, each with the number of who holds it."""

    _sequences: list[tuple[int, ...]] = field(default_factory=list)
    _owners: list[int] = field(default_factory=list)

    def add(self, sequence: tuple[int, ...], owner: int) -> None:
        """Note one."""
        place = bisect_left(self._sequences, sequence)
        self._sequences.insert(place, sequence)
        self._owners.insert(place, owner)

    def longest(self, sequence: tuple[int, ...]) -> tuple[int | None, int]:
        """Who holds the longest beginning of this sequence, and how long it is; None and 0 when it is not worth it.

        In alphabetical order, it is one of the two between which the sequence would stand.
        """
        place = bisect_left(self._sequences, sequence)
        near = range(max(place - 1, 0), min(place + 1, len(self._sequences)))
        found = max(
            ((common(self._sequences[at], sequence), self._owners[at]) for at in near), key=_length, default=None
        )
        return (None, 0) if found is None or found[0] < LEAST else (found[1], found[0])


@dataclass(frozen=True)
class Reading:
    """A sequence to read.

    owner: who is to hold it.  source: who holds its first ``shared`` tokens; None: nobody.
    """

    owner: int
    source: int | None
    shared: int


def rounds(sequences: Iterable[tuple[tuple[int, ...], int]], known: Known) -> Iterator[list[Reading]]:
    """Sequences in rounds: those of one are read side by side and take over what earlier ones have read.

    A sequence waits for a round when one that is read in it begins with ``LEAST`` tokens more of it than any read
    before. The last token is always left to read. ``known`` grows by what was read.
    """
    waiting = sorted(sequences, key=lambda item: len(item[0]), reverse=True)
    while waiting:
        now: list[Reading] = []
        late, started = [], Known()
        for sequence, owner in waiting:
            source, held = known.longest(sequence[:-1])
            if started.longest(sequence[:-1])[1] - held >= LEAST:
                late.append((sequence, owner))
                continue
            now.append(Reading(owner, source, held))
            started.add(sequence, owner)
        yield now
        unread = {owner for _, owner in late}
        for sequence, owner in waiting:
            if owner not in unread:
                known.add(sequence, owner)
        waiting = late


def _length(found: tuple[int, int]) -> int:
    return found[0]
