"""How a belief is written, ``- claim: label`` line by line, and what can be said of it without knowing the world."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PROBABILITY = {
    "certain": 1.0,
    "almost certain": 0.95,
    "probable": 0.75,
    "possible": 0.5,
    "unlikely": 0.25,
    "doubtful": 0.1,
    "ruled out": 0.0,
}
"""The labels there are, and the probabilities they are read as. ``confirmed`` is another word for ``certain``."""

WANTED, MOST = 8, 20
"""Bullets from which on a belief is long enough, and beyond which it is too long."""

_BULLET = re.compile(r"\s*[-*•]\s+(?P<text>\S.*)")
# Longer labels first, and whole words alone: `certain` is part of `almost certain`, and of `uncertain`.
_LABEL = re.compile(
    rf"[\s*_`\"']*(?P<label>{'|'.join(sorted((*PROBABILITY, 'confirmed'), key=len, reverse=True))})\b", re.IGNORECASE
)


class Claim(NamedTuple):
    """A bullet: what is claimed, in lower case with its space folded, and how certain it is; None: no known label."""

    text: str
    label: str | None

    @property
    def probability(self) -> float | None:
        """What the label is read as."""
        return None if self.label is None else PROBABILITY[self.label]


def claims(belief: str) -> list[Claim]:
    """The bullets of a belief, in order; other lines say nothing. The label begins what follows the last colon."""
    return [_claim(found["text"]) for line in belief.splitlines() if (found := _BULLET.fullmatch(line.rstrip()))]


def format_gate(bullets: Sequence[Claim]) -> float:
    """``min(1, n / 8) (labelled / n) (unique / n) min(1, 20 / n)``, and 0 without bullets (arXiv 2605.11436)."""
    count = len(bullets)
    if not count:
        return 0.0
    labelled = sum(bullet.label is not None for bullet in bullets)
    return min(1, count / WANTED) * labelled * len(set(bullets)) / count**2 * min(1, MOST / count)


def diversity(bullets: Iterable[Claim]) -> float:
    """Entropy of the labels' histogram over ``log(min(n, 7))`` for ``n`` labelled bullets; 0 for fewer than two."""
    histogram = Counter(bullet.label for bullet in bullets if bullet.label is not None)
    count = sum(histogram.values())
    if count < 2:
        return 0.0
    entropy = sum(-n / count * math.log(n / count) for n in histogram.values())
    return entropy / math.log(min(count, len(PROBABILITY)))


def nearest_label(probability: float) -> str:
    """The label that is read as the probability nearest to this one; the surer one of two."""
    return min(PROBABILITY, key=lambda label: abs(PROBABILITY[label] - probability))


def written(bullets: Iterable[tuple[str, str]]) -> str:
    """A belief of claims and labels, as :func:`claims` reads it."""
    return "\n".join(f"- {text}: {label}" for text, label in bullets)


def folded(text: str) -> str:
    """In lower case, with single spaces and without a full stop."""
    return " ".join(text.lower().split()).strip(" .")


def _claim(text: str) -> Claim:
    said, colon, label = text.rpartition(":")
    found = _LABEL.match(label) if colon else None
    if found is None:
        return Claim(folded(text), None)
    word = found["label"].lower()
    return Claim(folded(said), "certain" if word == "confirmed" else word)
