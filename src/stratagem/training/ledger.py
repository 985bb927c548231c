"""The ledger: what became of every episode that was begun, and the proof that none was learned from twice or lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from stratagem.experience import Experience
from stratagem.training.run_directory import RunDirectory
from stratagem.training.world import Collected

LEDGER = "episodes.jsonl"
"""The file of a run directory: a row for every step of a world that accounts for its episodes."""

PER_GROUP = 2**20
"""Episode ``n`` of group ``g`` of a run has the number ``g * PER_GROUP + n``, whatever a sampler asks for."""

FATES = ("failed", "rejected", "dropped", "skipped", "measured")
"""What may become of an episode that is not learned from.

failed: its environment did.  rejected: the sampler kept it out of the batch.  dropped: rewards, selections or credit
did, or the replay, which may bring it back.  skipped: its batch had no signal.  measured: it was only to be measured.
"""


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers in their order, as ``[first, last]`` of neighbours; one that occurs twice stays twice."""
    ordered = np.sort(np.fromiter(numbers, dtype=np.int64))
    if not len(ordered):
        return []
    breaks = np.flatnonzero(np.diff(ordered) != 1)
    firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(ordered) - 1)
    return np.stack([ordered[firsts], ordered[lasts]], 1).tolist()  # type: ignore[no-any-return]


def numbers_in(spans: Iterable[Sequence[int]]) -> list[int]:
    """The numbers that :func:`ranges` wrote."""
    return [number for first, last in spans for number in range(first, last + 1)]


def entry(
    collected: Collected, x: Experience | None, learned: bool, measured: Sequence[int] = ()
) -> dict[str, Any] | None:
    """The row of a batch, as JSON data; None of a world that does not account for its episodes.

    x: what is left of it after credit; None: nothing.  learned: whether optimizer steps are tried on that.
    measured: episodes begun beside the batch.
    """
    if collected.begun is None:
        return None
    failed, arrived, left = set(collected.failed), _numbers(collected.x), _numbers(x)
    known, kept = set(arrived), set(left)
    present = [number for number in left if number in known]
    fates = {
        "failed": collected.failed,
        "rejected": [number for number in collected.begun if number not in known and number not in failed],
        "dropped": [number for number in arrived if number not in kept],
        "skipped": () if learned else present,
        "measured": measured,
    }
    row: dict[str, Any] = {
        "begun": ranges([*collected.begun, *measured]),
        "learned": ranges(present if learned else ()),
        "left_out": {name: found for name in FATES if (found := ranges(fates[name]))},
    }
    again = ranges(number for number in left if learned and number not in known)
    return row | ({"replayed": again} if again else {})


def _numbers(x: Experience | None) -> list[int]:
    return [] if x is None or x.episode is None else x.episode.tolist()


class _Span(NamedTuple):
    """Neighbouring episodes that had one fate in one step."""

    first: int
    last: int
    step: int
    fate: str


@dataclass(frozen=True)
class Audit:
    """What a ledger proves.

    steps: rows read.  begun: episodes.  learned: those learned from, each in one step.  left_out: the others, by fate.
    replayed: episodes that a replay brought back, once for every time.  missing: groups of which no episode is
    accounted for although a later group is. Of a run that was ended while batches were collected at the same time, some
    of those may be missing; of any other, none.
    violation: the first thing that is wrong; None when no episode was learned from twice, had two fates, or none.
    """

    steps: int
    begun: int
    learned: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    replayed: int = 0
    missing: int = 0
    violation: str | None = None

    @property
    def proved(self) -> bool:
        """Whether every episode that was begun was learned from once, or left out for one reason."""
        return self.violation is None and not self.missing


def audit(rows: Iterable[Mapping[str, Any]]) -> Audit:
    """Read the rows of a ledger, in their order."""
    steps, begun, replayed = 0, 0, 0
    spans: list[_Span] = []
    violation, before = None, 0
    for row in rows:
        step = int(row["step"])
        if step <= before:
            violation = violation or f"step {step} follows step {before}"
        before, steps = step, steps + 1
        fates = {"learned": row["learned"], **row["left_out"]}
        mine = [_Span(first, last, step, fate) for fate, found in fates.items() for first, last in found]
        if violation is None and _joined(mine) != _joined(_Span(first, last, step, "") for first, last in row["begun"]):
            violation = f"step {step}: the episodes that were begun are not those that had a fate"
        spans += mine
        begun += _count(row["begun"])
        replayed += _count(row.get("replayed", ()))
    spans.sort()
    left_out = {fate: sum(s.last - s.first + 1 for s in spans if s.fate == fate) for fate in FATES}
    groups = {span.first // PER_GROUP for span in spans if span.first >= 0}
    return Audit(
        steps=steps,
        begun=begun,
        learned=sum(span.last - span.first + 1 for span in spans if span.fate == "learned"),
        left_out={fate: count for fate, count in left_out.items() if count},
        replayed=replayed,
        missing=max(groups, default=-1) + 1 - len(groups),
        violation=violation or _twice(spans),
    )


def audit_run(run: RunDirectory) -> Audit:
    """Read the ledger of a run; without one there are no steps. Raises :class:`InputError` for a damaged file."""
    return audit(run.rows(LEDGER))


def _count(spans: Iterable[Sequence[int]]) -> int:
    return sum(last - first + 1 for first, last in spans)


def _joined(spans: Iterable[_Span]) -> list[tuple[int, int]]:
    """The same episodes in as few stretches as possible; one that occurs twice does so still."""
    joined: list[tuple[int, int]] = []
    for span in sorted(spans):
        if joined and span.first == joined[-1][1] + 1:
            joined[-1] = joined[-1][0], span.last
        else:
            joined.append((span.first, span.last))
    return joined


def _twice(spans: Sequence[_Span]) -> str | None:
    """The first episode with two fates among spans in their order."""
    for one, other in _overlapping(spans):
        both = f"{one.fate} in step {one.step} and {other.fate} in step {other.step}"
        return f"episode {other.first}: {both}"
    return None


def _overlapping(spans: Sequence[_Span]) -> Iterator[tuple[_Span, _Span]]:
    for one, other in pairwise(spans):
        if other.first <= one.last:
            yield one, other
