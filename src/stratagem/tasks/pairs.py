"""Labelled pairs of answers from a JSON-lines file: candidates that somebody has compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from stratagem.errors import InputError
from stratagem.tasks.labels import Contradiction, Label, OneSided, read_labels
from stratagem.tasks.options import check_names, validate
from stratagem.tasks.splits import split_of
from stratagem.tasks.task import Environment, Observation, Split, Step, Task, state_key

_OPTIONS = ("inconsistent", "one_sided", "annotator", "test_share", "max_new_tokens")


@dataclass(frozen=True)
class PairsTask(Task):
    """One label per line of a file: ``{"prompt": ..., "chosen": ..., "rejected": ...}``, see :func:`read_labels`.

    A start state is one label, and its candidates are the two answers, for recipes that learn from what was labelled
    beforehand (:class:`stratagem.sampling.Candidates`). The chosen answer earns 1 and the rejected one 0, both of a tie
    1/2, so that ``BradleyTerry(temperature=0)`` says what the label does. The column ``margin`` notes half of the
    label's margin with the sign of the answer and pays nothing: ``BradleyTerry(temperature, reward="margin")`` makes of
    it ``P = sigmoid(margin / temperature)``.

    A policy that acts in it is asked the prompt; an answer in words that nobody has labelled there earns 0. Evaluation
    counts an answer that is the chosen one word for word, which says little of free text.

    path: the file, UTF-8.  inconsistent, one_sided, annotator: see :func:`read_labels`. Of a one-sided line there is
    one candidate.  test_share: expected share of prompts in the test split, by a stable hash, 0 to below 1.
    max_new_tokens: 1 to 1,000,000.

    ``labels_inconsistent``, ``labels_dropped`` and ``labels_repeated`` are what :class:`~stratagem.tasks.labels.Labels`
    counts; the description tells them, too. Raises :class:`InputError` naming path and line when a line cannot be used,
    and when a split would be empty.
    """

    path: str
    inconsistent: Contradiction = "keep"
    one_sided: OneSided = "refuse"
    annotator: str | None = None
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    labels_inconsistent: int = field(init=False, default=0)
    labels_dropped: int = field(init=False, default=0)
    labels_repeated: int = field(init=False, default=0)
    _labels: dict[Split, list[Label]] = field(init=False, repr=False, compare=False)

    name = "pairs"
    description = "pairs of answers that were labelled, from a JSON-lines file"
    reward_names = ("reward", "margin")
    reward_weights = (1.0, 0.0)

    def __post_init__(self) -> None:
        validate(self)
        read = read_labels(self.path, self.inconsistent, self.one_sided, self.annotator)
        by_split: dict[Split, list[Label]] = {"train": [], "test": []}
        for label in read.labels:
            by_split[split_of(state_key(label.prompt), self.test_share)].append(label)
        for split in ("train", "test") if self.test_share else ("train",):
            if not by_split[split]:
                share = f"test_share={self.test_share:g}"
                raise InputError(
                    f"{self.path}: none of its {len(read.labels)} labels falls into the {split} split at {share}"
                )
        counted = (
            f"{len(read.labels)} labelled pairs of {self.path}; {read.inconsistent} pairs are labelled both ways "
            f"({read.dropped} labels dropped), {read.repeated} labels were repetitions"
        )
        for name, value in (
            ("labels_inconsistent", read.inconsistent),
            ("labels_dropped", read.dropped),
            ("labels_repeated", read.repeated),
            ("description", counted),
            ("_labels", by_split),
        ):
            object.__setattr__(self, name, value)

    def environment(self, split: Split, index: int) -> PairEnvironment:
        return PairEnvironment(self.label(split, index))

    def candidates(self, split: Split, index: int) -> Sequence[Sequence[str]]:
        """The answers that there are, the chosen one first."""
        label = self.label(split, index)
        return [(answer,) for answer in (label.chosen, label.rejected) if answer is not None]

    def solution(self, split: Split, index: int) -> Iterator[str]:
        """The chosen answer. Raises ``NotImplementedError`` for a tie, and where none was chosen."""
        label = self.label(split, index)
        if label.chosen is None or label.tie:
            raise NotImplementedError(f"{self.path}, line {label.line}: no answer was preferred")
        return iter([label.chosen])

    def corrupted(self, split: Split, index: int) -> Iterator[str]:
        label = self.label(split, index)
        return iter([] if label.rejected is None else [label.rejected])

    def checkable(self, split: Split, index: int) -> bool:
        label = self.label(split, index)
        return label.chosen is not None and label.rejected is not None and not label.tie

    def label(self, split: Split, index: int) -> Label:
        """The label behind an episode."""
        labels = self._labels[split]
        if not labels:
            raise InputError(f"{self.path}: test_share=0 leaves no test prompts")
        return labels[index % len(labels)]

    def size(self, split: Split) -> int:
        """The number of labels in a split."""
        return len(self._labels[split])

    def start_states(self, split: Split) -> int:
        return self.size(split)


class PairEnvironment(Environment):
    """The prompt of one label; whatever the policy writes is its answer."""

    def __init__(self, label: Label) -> None:
        self.label = label

    def reset(self) -> Observation:
        # A key that tasks of prompts from files share, so that a label is found by it in either.
        return Observation(self.label.prompt, state_key("jsonl", self.label.prompt))

    def step(self, action: str) -> Step:
        label, answer = self.label, action.strip()
        sign = 1 if answer == label.chosen else -1 if answer == label.rejected else 0
        reward = 0.5 * abs(sign) if label.tie else float(sign > 0)
        end = Observation("", state_key("jsonl", "end"))
        success = sign > 0 and not label.tie
        return Step(end, reward, done=True, success=success, components={"margin": 0.5 * sign * label.margin})


def from_spec(argument: str | None, options: Mapping[str, str]) -> PairsTask:
    """``pairs:PATH[,inconsistent=keep,one_sided=refuse,annotator=NAME,test_share=0.1,max_new_tokens=256]``."""
    if not argument:
        raise InputError("task 'pairs' needs a file: pairs:PATH")
    check_names("pairs", options, list(_OPTIONS))
    values: dict[str, Any] = dict(options)
    return PairsTask(argument, **values)
