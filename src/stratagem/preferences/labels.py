"""What people have said, as an oracle: labels of a file, for the answers of a batch that are among them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference

_Key = tuple[int, int, int]


@dataclass(frozen=True)
class HumanLabels(Preference):
    """``P(i > j)``: of the labels of this pair of answers in a file, the share that prefers ``i``; a tie is one half.

    The file is one of the task ``pairs`` (``{"prompt": ..., "chosen": ..., "rejected": ...}`` a line), and batches are
    those of the tasks ``pairs`` and ``jsonl``, whose prompts it finds again by ``x.turn_state`` and whose answers by
    ``x.answer``. Answers that are the same tie.

    path: the file.  annotator: whose labels; None: everybody's.
    unlabelled: what becomes of a pair that nobody has labelled, as is soon met with where text is sampled: ``refuse``
    (an :class:`InputError`) or ``tie``.

    The file is read once in a process.

    Raises :class:`InputError` as :func:`stratagem.tasks.labels.read_labels` does.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"answer", "turn_state"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.preferences"})

    path: str
    annotator: str | None = None
    unlabelled: Literal["refuse", "tie"] = "refuse"

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        if x.answer is None or x.turn_state is None:
            raise ValueError("labels of people need x.answer and x.turn_state")
        shares = _shares(self.path, self.annotator)
        prompt = x.turn_state[x.trajectory_of_turn.first()][first].tolist()
        one, other = x.answer[first].tolist(), x.answer[second].tolist()
        pairs = list(zip(prompt, one, other, strict=True))
        said = [0.5 if i == j else shares.get((p, i, j)) for p, i, j in pairs]
        if None in said and self.unlabelled == "refuse":
            row = said.index(None)
            raise InputError(
                f"{self.part_name()}: {self.path} has no label of the answers of trajectories {int(first[row])} and "
                f"{int(second[row])}; with unlabelled = tie such pairs tie"
            )
        return x.returns.new_tensor([0.5 if share is None else share for share in said])


@lru_cache(maxsize=8)
def _shares(path: str, annotator: str | None) -> dict[_Key, float]:
    """By prompt and two answers, the share of labels that prefers the first."""
    from stratagem.tasks.labels import read_labels
    from stratagem.tasks.task import answer_key, state_key

    votes: dict[_Key, list[float]] = {}
    for label in read_labels(path, annotator=annotator).labels:
        prompt = state_key("jsonl", label.prompt)
        better, worse = answer_key(label.chosen), answer_key(label.rejected)
        won = 0.5 if label.tie else 1.0
        votes.setdefault((prompt, better, worse), []).append(won)
        votes.setdefault((prompt, worse, better), []).append(1 - won)
    return {key: sum(said) / len(said) for key, said in votes.items()}
