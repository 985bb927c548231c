"""Reward and preference models at work: a folder, and what its model makes of answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.language.answer_head import FILE
from stratagem.language.chat import ChatFormat
from stratagem.language.engines import find_device
from stratagem.language.inputs import TokenInputs
from stratagem.language.policy import LanguagePolicy
from stratagem.readings import Scored
from stratagem.training.microbatches import microbatches

AT_ONCE = 2**14
"""Most tokens that a model reads in one forward pass, but for a single answer that is longer."""


class AnswerModel:
    """A language model with a head of answers, which is never trained.

    Raises :class:`InputError` for a policy without one.
    """

    def __init__(self, policy: LanguagePolicy) -> None:
        if policy.answer_head is None:
            raise InputError("this model has no head of answers")
        self._policy, self._head = policy, policy.answer_head
        self._chat = ChatFormat(policy.tokenizer)
        self._longest = int(getattr(policy.model.config, "max_position_embeddings", None) or 2**62)

    @property
    def dims(self) -> int:
        """Numbers that it makes of an answer."""
        return self._head.view.dims

    def embedded(self, answers: Sequence[Scored]) -> Float[Tensor, "answers dims"]:
        """What it makes of these answers; NaN for one that does not fit into its context."""
        read = [self._read(one) for one in answers]
        fit = [place for place, tokens in enumerate(read) if len(tokens) <= self._longest]
        found = torch.full((len(answers), self.dims), torch.nan)
        if fit:
            found[fit] = embeddings(self._policy, _batch([read[place] for place in fit]))
        return found

    def _read(self, one: Scored) -> list[int]:
        said: list[int] = self._policy.tokenizer(one.answer.strip(), add_special_tokens=False)["input_ids"]
        return [*self._chat.opening([{"role": "user", "content": one.prompt}]), *said, *self._chat.end_tokens]


@torch.no_grad()
def embeddings(policy: LanguagePolicy, x: Experience) -> Float[Tensor, "trajectories dims"]:
    """What the policy's head makes of every trajectory of a batch, each of which has a token."""
    head = policy.answer_head
    assert head is not None
    found = []
    for piece in microbatches(x.to(policy.device), AT_ONCE):
        out = policy(piece, also=("embedding",), view=head.view)
        assert out.embedding is not None
        found.append(out.embedding[piece.trajectory_of_token.last()])
    return torch.cat(found).cpu()


def _batch(read: Sequence[Sequence[int]]) -> Experience:
    """Texts as trajectories of which only the last token is asked about."""
    lengths, ones = torch.tensor([len(tokens) for tokens in read]), [1] * len(read)
    inputs = TokenInputs(torch.tensor([*chain.from_iterable(read)]), lengths, lengths.cumsum(0) - 1)
    return Experience.from_lengths(ones, ones, ones, inputs=inputs)


def answer_model(path: str) -> AnswerModel:
    """The model of a folder, read once in a process, and again when it has changed.

    Raises :class:`InputError` for a folder that holds none.
    """
    file = Path(path).expanduser() / FILE
    if not file.is_file():
        raise InputError(
            f"model {path}: has no {FILE}; bradley_terry_model and pairwise_model train models that have one"
        )
    return _read(path, file.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: str, changed: int) -> AnswerModel:
    policy = LanguagePolicy.from_path(Path(path).expanduser())
    policy.to(find_device("auto"))
    return AnswerModel(policy)
