"""What to ask next: the questions whose answers tell most about the user."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.learned.reward_models import Comparisons
from stratagem.preferences.learned.users import UserModel
from stratagem.seeding import generator

MOST_QUESTIONS = 12
"""Of a set, all of whose 2^n answers are tried."""


def mutual_information(probability: Float[Tensor, "types *sets questions"]) -> Float[Tensor, "*sets"]:
    """``H(mean_z P(y | z)) - mean_z H(P(y | z))``, nats: what the answers ``y`` to a set of questions tell of ``z``.

    probability: ``P(first preferred | z)`` of every question, for equally likely types; answers are independent given
    ``z``. 0 where all types answer alike, however uncertain; ``log 2`` where two types surely answer otherwise.

    Raises :class:`InputError` for more than 12 questions in a set.
    """
    answers = _answers(probability.shape[-1]).to(probability.device)
    said = probability.double().unsqueeze(-2)
    given = torch.where(answers, said, 1 - said).prod(-1)
    return _entropy(given.mean(0)) - _entropy(given).mean(0)


@torch.no_grad()
def variance_information(model: UserModel, candidates: Comparisons) -> Float[Tensor, " sets"]:
    """``log(2 pi E_y sum_d v_d) - E_y sum_d log(2 pi v_d)``, ``v`` the variances of ``q(z | questions, answers y)``.

    All answers count alike. It is the released code's score, which is no mutual information: it also rewards beliefs
    that answers make narrow whichever they are.
    """
    sets, questions = candidates.label.shape
    answers = _answers(questions)
    shape = (sets, len(answers), questions, *candidates.first.shape[2:])
    first, second = (side.unsqueeze(1).expand(shape) for side in (candidates.first, candidates.second))
    label = answers.to(candidates.first.dtype).expand(sets, -1, -1)
    log_variance = model.belief(Comparisons(first, second, label)).log_variance.double()
    spread = (2 * math.pi * log_variance.exp().sum(-1).mean(1)).log()
    return spread - (math.log(2 * math.pi) + log_variance).sum(-1).mean(1)


@torch.no_grad()
def choose(
    model: UserModel,
    candidates: Comparisons,
    answered: Comparisons | None = None,
    criterion: Literal["answers", "variance"] = "answers",
    draws: int = 256,
    seed: int = 0,
) -> int:
    """The number of the candidate set that is worth asking; the first of equally good ones.

    candidates: sets of questions; their labels are not read.  answered: what this user has said so far, pairs without
    sets.  criterion: ``answers``: :func:`mutual_information` of answers and type over ``draws`` types from the present
    belief; ``variance``: :func:`variance_information`, as the released code, which starts from nothing.

    Raises :class:`InputError` without candidates.
    """
    if candidates.label.ndim != 2 or not candidates.label.numel():
        raise InputError("choose: candidates must be (sets, questions), at least one of each")
    if criterion == "variance":
        return int(variance_information(model, candidates).argmax())
    belief = model.prior if answered is None else model.belief(answered)
    latent = belief.sample(draws, generator(seed, "types")).view(draws, 1, 1, -1)
    probability = torch.sigmoid(model.difference(candidates.first, candidates.second, latent))
    return int(mutual_information(probability).argmax())


def _answers(questions: int) -> Tensor:
    """All answers there are to so many questions."""
    if not 1 <= questions <= MOST_QUESTIONS:
        raise InputError(f"a set has {questions} questions; it must have 1 to {MOST_QUESTIONS}")
    return (torch.arange(1 << questions).unsqueeze(1) >> torch.arange(questions)) % 2 == 1


def _entropy(probability: Tensor) -> Tensor:
    found: Tensor = torch.special.entr(probability).sum(-1)
    return found
