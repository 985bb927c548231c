"""Models that have learned who prefers what, as oracles: of scores, or of preferences that may go in circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Preference
from stratagem.preferences.oracles import preferred
from stratagem.readings import Pair, ReadsPairs, Scored


def lead(first: Float[Tensor, "*pairs dims"], second: Float[Tensor, "*pairs dims"]) -> Float[Tensor, "*pairs"]:
    """By how many nats the first of two answers is preferred, from what a head of answers makes of each.

    Of scores ``d = v - v'``; of an even number of dims ``d = <R v, v'>`` with ``R`` made of blocks
    ``[[0, -1], [1, 0]]``, so that ``d(v', v) = -d(v, v')``. Such leads can be any skew-symmetric matrix of as many
    answers as there are dims: preferences need not be transitive (arXiv 2410.02197).
    """
    if first.shape[-1] == 1:
        return (first - second).squeeze(-1)
    one, other = first.unflatten(-1, (-1, 2)), second.unflatten(-1, (-1, 2))
    ahead: Tensor = (one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]).sum(-1)
    return ahead


@dataclass(frozen=True)
class PreferenceModel(ReadsPairs, Preference):
    """``P(i > j) = sigmoid(d / temperature)``, ``d`` the lead of ``i`` by a model that was trained on labels.

    Each answer is read once, whatever it is compared with (:func:`lead`). The model is asked as the task ``pairs`` asks
    it: the prompt as the user's message, then the answer without the space around it. An answer that does not fit into
    its context is lost.

    path: folder of a model trained by ``bradley_terry_model`` or ``pairwise_model``, such as ``RUN/model``.
    temperature: above 0.

    Raises :class:`InputError`, before a run begins, for a folder without such a model.
    """

    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.preferences", "reward.verifier.model"})

    path: str = ""
    temperature: Annotated[float, Gt(0)] = 1.0

    def check_ready(self) -> None:
        check_model(self.part_name(), self.path)

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        answers = [*dict.fromkeys(Scored(pair.prompt, text) for pair in pairs for text in (pair.first, pair.second))]
        found = dict(zip(answers, embedded(self.path, answers), strict=True))
        first, second = (
            torch.stack([found[Scored(pair.prompt, text)] for pair, text in zip(pairs, texts, strict=True)])
            for texts in ([pair.first for pair in pairs], [pair.second for pair in pairs])
        )
        likely: list[float] = preferred(lead(first, second), self.temperature).tolist()
        return likely

    def __call__(self, x: Experience, first: Tensor, second: Tensor) -> Float[Tensor, " pairs"]:
        return self.compared(x, first, second)


def check_model(who: str, path: str, scores: bool = False) -> None:
    """Raise :class:`InputError` where ``path`` holds no model of answers, or none that scores them one by one."""
    from stratagem.language.answer_models import answer_model

    if not path:
        raise InputError(f"{who}.path: names no model; write the folder of one that bradley_terry_model has trained")
    dims = answer_model(path).dims
    if scores and dims > 1:
        raise InputError(
            f"{who}.path = {path}: embeds answers in {dims} numbers for comparisons, and has no score of one alone"
        )


def embedded(path: str, answers: Sequence[Scored]) -> Float[Tensor, "answers dims"]:
    """What the model in this folder makes of answers; NaN for those that it cannot read."""
    from stratagem.language.answer_models import answer_model

    return answer_model(path).embedded(answers)
