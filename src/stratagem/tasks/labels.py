"""What people said of pairs of answers: labels from a JSON-lines file, and what is done about those that contradict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from stratagem.errors import InputError
from stratagem.tasks.json_lines import answer_text, prompt_text, read_lines, some_text

Contradiction = Literal["keep", "drop", "refuse"]
OneSided = Literal["refuse", "keep"]

_EXAMPLE = '{"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}'


@dataclass(frozen=True, slots=True)
class Label:
    """One line: to ``prompt``, ``chosen`` is a better answer than ``rejected``, or as good (``tie``).

    One of the answers is None on a one-sided line. margin: by how much it is better, on the labeller's own scale.
    annotator: who said so, where the line tells.  line: its number in the file, from 1.
    """

    prompt: str
    chosen: str | None
    rejected: str | None
    tie: bool
    margin: float
    annotator: str | None
    line: int

    @property
    def pair(self) -> tuple[str, frozenset[str | None]]:
        """Prompt and both answers, whichever was chosen."""
        return self.prompt, frozenset((self.chosen, self.rejected))


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a file, in its order.

    inconsistent: pairs that were labelled both ways.  dropped: labels left out for that.  repeated: labels left out
    since the same annotator had said the same before.
    """

    labels: tuple[Label, ...]
    inconsistent: int
    dropped: int
    repeated: int


def read_labels(
    path: str,
    inconsistent: Contradiction = "keep",
    one_sided: OneSided = "refuse",
    annotator: str | None = None,
) -> Labels:
    """The labels of a file with lines ``{"prompt": text or chat messages, "chosen": text, "rejected": text, ...}``.

    Further fields of a line: ``tie`` (true: neither is better), ``margin`` (a number, at least 0; 1 where a line says
    none, 0 for a tie) and ``annotator`` (text). An answer may be a list of one message by the assistant. White space
    around answers does not count. Every line is a label of its own, so that what several people say counts as often,
    but for repetitions by one annotator.

    inconsistent: what becomes of pairs of which each answer was preferred at some time: ``keep`` (all of their labels),
    ``drop`` (none, ties included) or ``refuse`` (an :class:`InputError` naming both lines). They are counted.
    one_sided: whether lines with one answer alone are errors or kept.  annotator: whose labels; None: everybody's.

    Raises :class:`InputError` naming path and line for a line that cannot be used: a field that is missing or no text,
    an answer without the other, two answers that are the same, a margin that is no number or below 0, or beside a tie;
    and for a file in which nothing is left.
    """
    found = [
        Label(**fields, line=number)
        for number, fields in read_lines(path, lambda record: _fields(record, one_sided), _EXAMPLE)
    ]
    said = [label for label in found if annotator is None or label.annotator == annotator]
    if not said:
        people = sorted({label.annotator for label in found if label.annotator is not None})
        known = f"it has {', '.join(people[:8])}" if people else "its lines name nobody"
        raise InputError(f"{path}: no label by annotator {annotator!r}: {known}")
    labels, repeated = _distinct(said)
    both_ways = _both_ways(labels)
    if both_ways and inconsistent == "refuse":
        first, second = next(iter(both_ways.values()))
        raise InputError(
            f"{path}, line {second.line}: labels the pair of line {first.line} the other way round; "
            f"{len(both_ways)} pairs are labelled both ways, and inconsistent = refuse allows none"
        )
    kept = tuple(label for label in labels if inconsistent == "keep" or label.pair not in both_ways)
    if not kept:
        raise InputError(f"{path}: all pairs are labelled both ways, and inconsistent = drop leaves nothing")
    return Labels(kept, len(both_ways), len(labels) - len(kept), repeated)


def _distinct(labels: Iterable[Label]) -> tuple[list[Label], int]:
    """Without what an annotator had said before, and how many labels that were."""
    known: set[tuple[object, ...]] = set()
    kept, repeated = [], 0
    for label in labels:
        side = None if label.tie else label.chosen
        key = (label.annotator, *label.pair, side)
        if label.annotator is not None and key in known:
            repeated += 1
            continue
        known.add(key)
        kept.append(label)
    return kept, repeated


def _both_ways(labels: Iterable[Label]) -> dict[object, tuple[Label, Label]]:
    """Pairs of which each answer was preferred at some time, with the first label and the first that contradicts it."""
    first: dict[object, Label] = {}
    found: dict[object, tuple[Label, Label]] = {}
    for label in labels:
        if label.tie or label.chosen is None or label.rejected is None:
            continue
        before = first.setdefault(label.pair, label)
        if before.chosen != label.chosen:
            found.setdefault(label.pair, (before, label))
    return found


def _fields(record: dict[str, Any], one_sided: OneSided) -> dict[str, Any]:
    prompt = prompt_text(record.get("prompt"))
    answers = {name: _answer(record.get(name), name) for name in ("chosen", "rejected")}
    lacking = [name for name, answer in answers.items() if answer is None]
    tie = record.get("tie", False)
    if not isinstance(tie, bool):
        raise ValueError(f"tie must be true or false, not {tie!r}")
    if len(lacking) == 2:
        raise ValueError("chosen and rejected are missing")
    if lacking and tie:
        raise ValueError(f"{lacking[0]} is missing: a tie is between two answers")
    if lacking and one_sided == "refuse":
        raise ValueError(f"{lacking[0]} is missing: a pair has two answers (one_sided=keep takes lines with one)")
    if answers["chosen"] == answers["rejected"]:
        raise ValueError("chosen and rejected are the same answer")
    annotator = record.get("annotator")
    return {
        "prompt": prompt,
        **answers,
        "tie": tie,
        "margin": _margin(record.get("margin"), tie),
        "annotator": None if annotator is None else some_text(annotator, "annotator"),
    }


def _answer(value: object, name: str) -> str | None:
    return None if value is None else answer_text(value, name).strip()


def _margin(margin: object, tie: bool) -> float:
    if margin is None:
        return 0.0 if tie else 1.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin) or margin < 0:
        raise ValueError(f"margin must be a number, at least 0, not {margin!r}")
    if tie and margin:
        raise ValueError(f"margin is {margin:g} beside a tie, which has none")
    return float(margin)
