"""What people have said, as an oracle: labels of a file, for the answers of a batch that are among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference
from stratagem.readings import Pair, ReadsPairs


@dataclass(frozen=True)
class HumanLabels(ReadsPairs, Preference):
    """``P(i > j)``: of the labels of this pair of answers in a file, the share that prefers ``i``; a tie is one half.

    The file is one of the task ``pairs`` (``{"prompt": ..., "chosen": ..., "rejected": ...}`` a line), as ``stratagem
    label`` writes it. A label is found by the text of prompt and answers, but for the space around answers, in batches
    of any task. Answers that are the same tie.

    path: the file.  annotator: whose labels; None: everybody's.
    unlabelled: what becomes of a pair that nobody has labelled, as is soon met with where text is sampled: ``refuse``
    (an :class:`InputError`), ``tie``, or ``lose`` (the comparison is lost, as one that a judge has not answered).

    The file is read once in a process.

    Raises :class:`InputError` as :func:`stratagem.tasks.labels.read_labels` does, before a run begins.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.preferences"})

    path: str
    annotator: str | None = None
    unlabelled: Literal["refuse", "tie", "lose"] = "refuse"

    def check_ready(self) -> None:
        _shares(self.path, self.annotator)

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        shares, otherwise = _shares(self.path, self.annotator), math.nan if self.unlabelled == "lose" else 0.5
        said = []
        for pair in pairs:
            first, second = pair.first.strip(), pair.second.strip()
            share = 0.5 if first == second else shares.get((pair.prompt, first, second))
            if share is None and self.unlabelled == "refuse":
                raise InputError(
                    f"{self.part_name()}: {self.path} has no label of {_short(first)} and {_short(second)} as answers "
                    f"to {_short(pair.prompt)}; with unlabelled = tie such pairs tie, with lose they do not count"
                )
            said.append(otherwise if share is None else share)
        return said

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        return self.compared(x, first, second)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


@lru_cache(maxsize=8)
def _shares(path: str, annotator: str | None) -> dict[tuple[str, str, str], float]:
    """By prompt and two answers, the share of labels that prefers the first."""
    from stratagem.tasks.labels import read_labels

    votes: dict[tuple[str, str, str], list[float]] = {}
    for label in read_labels(path, annotator=annotator).labels:
        if label.chosen is None or label.rejected is None:
            continue
        won = 0.5 if label.tie else 1.0
        votes.setdefault((label.prompt, label.chosen, label.rejected), []).append(won)
        votes.setdefault((label.prompt, label.rejected, label.chosen), []).append(1 - won)
    return {key: sum(said) / len(said) for key, said in votes.items()}
