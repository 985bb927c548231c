"""Parts that read text: what they are shown, how often they are asked, and where what they say stands in a batch.

A part of a recipe sees tensors. One that has to read what was written, such as a judge or a reward model, is asked
where the text is: by the world, once for every batch it has collected
(:class:`stratagem.training.world.TextWorld`). What it says becomes ``x.reading``, a tensor that travels with the batch,
so that it is asked once whatever happens to the batch afterwards: cut, stored in a checkpoint, replayed, or learned
from by several processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.part import Part
from stratagem.partition import Partition


@dataclass(frozen=True)
class Texts:
    """What there is to read of the trajectories of a batch.

    prompts: what was shown first.  answers: what the policy said to it, or, of several turns, all that was said.
    groups: trajectories by group.
    """

    prompts: Sequence[str]
    answers: Sequence[str]
    groups: Partition


class Pair(NamedTuple):
    """Two different answers to a prompt, in the order of their text."""

    prompt: str
    first: str
    second: str


class Scored(NamedTuple):
    """An answer to a prompt."""

    prompt: str
    answer: str


Known = MutableMapping[tuple[str, ...], float]
"""What a part has said of a pair or of an answer before."""


class ReadsText:
    """What a part has to be, beside its own kind, to be shown text. It has ``reading`` in its ``requires``.

    NaN stands for what could not be found out, as when who is asked is down.
    """

    @property
    def reader(self) -> str:
        """By which a batch knows whose reading it holds: equal parts have equal names, in every process."""
        assert isinstance(self, Part)
        return f"{self.part_name()}-{hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()}"

    def check_ready(self) -> None:
        """Raise :class:`InputError` when it cannot be asked at all, before a run begins."""

    def read(self, texts: Texts, known: Known) -> Float[Tensor, "trajectories places"]:
        """What it says of every trajectory; ``known`` is looked into first, and told of what is new."""
        raise NotImplementedError

    def unheard(self, said: Float[Tensor, "trajectories places"], groups: Partition) -> Tensor:
        """True for trajectories of which it says nothing that can be learned from [trajectories]."""
        raise NotImplementedError


class ReadsPairs(ReadsText):
    """Reads every two answers of a group: ``said[i, k]`` is ``P(i > j)`` for the ``j`` in place ``k`` of the group.

    A pair is asked about once in a batch, however often it is there and whichever of the two comes first; equal answers
    tie without being shown.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"reading"})

    def compare(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """``P(first > second)`` of each of these different pairs, in [0, 1], or NaN; all of them in one call."""
        raise NotImplementedError

    def read(self, texts: Texts, known: Known) -> Float[Tensor, "trajectories places"]:
        groups, place = texts.groups, texts.groups.position()
        said = torch.full((len(groups), int(groups.size().max())), math.nan)
        first, second = groups.pairs()
        once = first < second
        rows, others = first[once].tolist(), second[once].tolist()
        pairs = [
            Pair(texts.prompts[i], *sorted((texts.answers[i], texts.answers[j])))
            for i, j in zip(rows, others, strict=True)
        ]
        new = [*dict.fromkeys(pair for pair in pairs if pair not in known and pair.first != pair.second)]
        found = dict(zip(new, self.compare(new), strict=True)) if new else {}
        known.update({pair: value for pair, value in found.items() if not math.isnan(value)})
        found |= {pair: known[pair] for pair in pairs if pair in known}
        likely = torch.tensor([0.5 if pair.first == pair.second else found[pair] for pair in pairs])
        swapped = torch.tensor(
            [p.first != texts.answers[i] for p, i in zip(pairs, rows, strict=True)], dtype=torch.bool
        )
        likely = torch.where(swapped, 1 - likely, likely)
        said[torch.arange(len(groups)), place] = 0.5
        said[rows, place[others]] = likely
        said[others, place[rows]] = 1 - likely
        return said

    def unheard(self, said: Float[Tensor, "trajectories places"], groups: Partition) -> Tensor:
        # Every answer is compared with itself, so that one of several needs two.
        heard = (~said.isnan()).sum(1)
        return (heard < 2) & (groups.spread(groups.size()) > 1)

    def compared(
        self, x: Experience, first: Int[Tensor, " pairs"], second: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """What it said of these pairs of trajectories of a batch when that was collected."""
        said = reading_of(self, x)
        if x.reading_place is None:
            raise ValueError("a reading of pairs needs x.reading_place")
        return said[first, x.reading_place[second]].to(x.returns.dtype)


class ReadsAnswers(ReadsText):
    """Reads every answer by itself: ``said[i, 0]`` is its score."""

    requires: ClassVar[frozenset[str]] = frozenset({"reading"})

    def score(self, answers: Sequence[Scored]) -> Sequence[float]:
        """A finite score for each of these different answers, or NaN; all of them in one call."""
        raise NotImplementedError

    def read(self, texts: Texts, known: Known) -> Float[Tensor, "trajectories places"]:
        answers = [Scored(*one) for one in zip(texts.prompts, texts.answers, strict=True)]
        new = [*dict.fromkeys(one for one in answers if one not in known)]
        found = dict(zip(new, self.score(new), strict=True)) if new else {}
        known.update({one: value for one, value in found.items() if not math.isnan(value)})
        found |= {one: known[one] for one in answers if one in known}
        return torch.tensor([[found[one]] for one in answers])

    def unheard(self, said: Float[Tensor, "trajectories places"], groups: Partition) -> Tensor:
        return said[:, 0].isnan()

    def scored(self, x: Experience) -> Float[Tensor, " trajectories"]:
        """What it said of every trajectory of a batch when that was collected."""
        return reading_of(self, x)[:, 0].to(x.returns.dtype)


def text_readers(part: Part) -> tuple[ReadsText, ...]:
    """The different readers of text that this part is made of, in order."""
    return tuple({one.reader: one for one in _readers(part)}.values())


def _readers(part: Part) -> Iterator[ReadsText]:
    if isinstance(part, ReadsText):
        yield part
    for _, child in part.children():
        yield from _readers(child)


def reading_of(part: ReadsText, x: Experience) -> Float[Tensor, "trajectories places"]:
    """What this part said of a batch. Raises ``ValueError`` for a batch that it has not read."""
    if x.reading is None or part.reader not in x.readers:
        raise ValueError(f"{part.reader} reads text, and has not read this batch: only a world that has text asks it")
    return x.reading[:, x.readers.index(part.reader)]


def with_readings(x: Experience, said: Sequence[tuple[ReadsText, Float[Tensor, "trajectories places"]]]) -> Experience:
    """The batch with what these parts say of it, by reader, padded with NaN to as many places."""
    places = max(values.shape[1] for _, values in said)
    padded = [torch.nn.functional.pad(values, (0, places - values.shape[1]), value=math.nan) for _, values in said]
    return x.replace(
        reading=torch.stack(padded, 1).to(x.device),
        reading_place=x.group_of_trajectory.position(),
        readers=tuple(part.reader for part, _ in said),
    )
