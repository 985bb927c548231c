"""Policies against each other before an oracle: what they answer to the same prompts, and who is preferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Preference
from stratagem.preferences import measures
from stratagem.preferences.oracles import win_matrix


@dataclass(frozen=True, eq=False)
class Answers:
    """What a policy answers to some prompts.

    x: a group for every prompt, a trajectory for every answer.  share: how likely each answer is among those to its
    prompt, so they add up to 1 in every group; a sample has equal ones.  prompt: weight of every prompt; they add up
    to 1.  complete: whether ``x`` holds every answer there is, whatever the policy.
    """

    x: Experience
    share: Float64[Tensor, " trajectories"]
    prompt: Float64[Tensor, " groups"]
    complete: bool = False


@runtime_checkable
class JudgedTask(Protocol):
    """A task that may say itself which of two answers is preferred."""

    @property
    def oracle(self) -> Preference | None:
        """Who is asked; None: answers are worth what they earn."""
        ...


@runtime_checkable
class JudgedWorld(Protocol):
    """A world whose policy can be asked for answers that are to be compared."""

    def answers(self, prompts: int) -> Answers:
        """Of the policy last served to held-out prompts, the same ones in the same order whatever the policy."""
        ...


def win_rate(oracle: Preference, first: Answers, second: Answers) -> float:
    """``P(pi > pi')``: how often an answer of the first is preferred to one of the second to the same prompt.

    ``sum_x w(x) sum_ij pi(y_i | x) pi'(y_j | x) P(y_i > y_j | x)``. A tie counts half for both, so that with an oracle
    that agrees with itself ``P(pi > pi') + P(pi' > pi) = 1``. Both must be answers to the same prompts.
    """
    one, other = first.x.group_of_trajectory.labels, second.x.group_of_trajectory.labels
    i, j = torch.nonzero(one.unsqueeze(1) == other, as_tuple=True)
    said = oracle(Experience.concatenate([first.x, second.x]), i, len(one) + j).double()
    return float((first.prompt[one[i]] * first.share[i] * second.share[j] * said).sum())


def exploitability(oracle: Preference, answers: Answers) -> float:
    """``max_y P(y > pi) - 1/2``, the mean over prompts: how much the best answer to a policy is preferred to it.

    Half of the duality gap of self-play, in [0, 1/2], and 0 for minimax winners alone. It looks for the best answer
    among those listed, so they must be ``complete``; raises ``ValueError`` otherwise. Raises :class:`InputError` where
    prompts have different numbers of answers.
    """
    if not answers.complete:
        raise ValueError("exploitability needs every answer there is")
    wins = win_matrix(oracle, answers.x)
    gaps = measures.exploitability(wins, answers.share.view(wins.shape[:2]))
    return float((answers.prompt * gaps).sum())
