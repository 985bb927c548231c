"""Rewards put in the place of a task's own: right, wrong, random, for the format, for agreement, for confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Reward
from stratagem.seeding import uniform


@dataclass(frozen=True)
class _Signal(Reward):
    """A reward of the whole trajectory that replaces every other one, rewards of turns and tokens included."""

    tags: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, x: Experience) -> Experience:
        missing = x.missing(self.needs())
        if missing:
            raise ValueError(f"{self.part_name()} reads {', '.join(missing)}, which this experience does not have")
        return x.replace(
            reward=self.signal(x).float(),
            reward_names=("reward",),
            reward_weights=(1.0,),
            turn_reward=None,
            token_reward=None,
        )

    def signal(self, x: Experience) -> Tensor:
        """What each trajectory earns."""
        raise NotImplementedError


@dataclass(frozen=True)
class Correct(_Signal):
    """``R = acc * fmt``: 1 for success in the right format, whatever else the task rewards.

    ``acc`` is ``success``. ``fmt`` is the reward named ``format`` where the task has one, and 1 where it has none.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"success"})

    def signal(self, x: Experience) -> Tensor:
        return _correct(x) * _format(x)


@dataclass(frozen=True)
class Inverted(_Signal):
    """``R = (1 - acc) * fmt``: pays for failure in the right format. ``acc`` and ``fmt`` as in :class:`Correct`.

    Where ``fmt`` is 1 throughout, any advantage that is centered within the group is exactly minus that of success.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"success"})

    def signal(self, x: Experience) -> Tensor:
        return (1 - _correct(x)) * _format(x)


@dataclass(frozen=True)
class FormatOnly(_Signal):
    """``R = fmt`` as in :class:`Correct`: what of a gain is no more than being read.

    All trajectories of a task without a reward for the format earn 1, and nothing can be learned from that.
    """

    def signal(self, x: Experience) -> Tensor:
        return _format(x)


@dataclass(frozen=True)
class RandomSignal(_Signal):
    """``R = fmt * b`` with ``b = 1`` with this probability, whatever the policy did: a control for every other reward.

    ``fmt`` as in :class:`Correct`. ``b`` follows from the trajectory's ``seed``, so it is the same when the batch is
    shaped twice, cut or resumed, and another for another seed of the run.

    probability: in [0, 1].  stream: signals of different streams are independent of each other.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"seed"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.chance"})

    probability: Annotated[float, Ge(0), Le(1)] = 0.5
    stream: Annotated[int, Ge(0)] = 0

    def signal(self, x: Experience) -> Tensor:
        assert x.seed is not None
        drawn = uniform(x.seed, torch.full_like(x.seed, self.stream))
        return (drawn < self.probability) * _format(x)


@dataclass(frozen=True)
class Majority(_Signal):
    """``R = 1`` for the answer that most of the group gave, else 0: no verifier needed (TTRL, arXiv 2504.16084).

    A trajectory whose answer cannot be read has no vote and earns 0. Answers are the same when their keys are: they are
    compared as text, or as numbers, by the task.

    ties: which of equally frequent answers wins: the one that came "first" in the batch; or the "likeliest", for whose
    trajectories the mean log-probability of the tokens that may train adds up to most, and of equals the one with the
    smallest key.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"answer"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.policy", "search.guidance.internal"})

    ties: Literal["first", "likeliest"] = "first"

    def needs(self) -> frozenset[str]:
        return super().needs() | ({"behavior_logp"} if self.ties == "likeliest" else frozenset())

    def signal(self, x: Experience) -> Tensor:
        assert x.answer is not None
        return _elected(x.answer, x.group_of_trajectory, _mean_logp(x) if self.ties == "likeliest" else None)


@dataclass(frozen=True)
class Confidence(_Signal):
    """``R = mean_t log mu(a_t)`` over the tokens that may train: entropy minimisation as a reward.

    Its expectation is minus the entropy of the policy per token; no verifier, no answer is looked at. A trajectory
    without such a token earns 0. (As a term of the loss, ``-1 * EntropyBonus()`` does the same without sampling.)
    """

    requires: ClassVar[frozenset[str]] = frozenset({"behavior_logp"})
    tags: ClassVar[frozenset[str]] = frozenset({"reward.source.policy", "search.guidance.internal"})

    def signal(self, x: Experience) -> Tensor:
        return _mean_logp(x)


def _mean_logp(x: Experience) -> Float[Tensor, " trajectories"]:
    """Mean log-probability of the tokens of each trajectory that may train; 0 without any."""
    assert x.behavior_logp is not None
    kept = x.learnable()
    total = x.trajectory_of_token.sum(torch.where(kept, x.behavior_logp, 0.0))
    return total / x.trajectory_of_token.sum(kept.long()).clamp(min=1)


def _correct(x: Experience) -> Float[Tensor, " trajectories"]:
    assert x.success is not None
    return x.success.float()


def _format(x: Experience) -> Float[Tensor, " trajectories"]:
    form = x.named_reward("format")
    if form is not None:
        return form
    return torch.ones(x.trajectories, device=x.device)


def _elected(
    answer: Int[Tensor, " trajectories"], groups: Partition, score: Float[Tensor, " trajectories"] | None
) -> Float[Tensor, " trajectories"]:
    """1 for those who gave their group's most frequent answer, else 0; -1 is none.

    score: adds up to what decides between equally frequent answers, then the key; None: who came first.
    """
    if len(answer) == 0:
        return torch.zeros(0, device=answer.device)
    ballots = Partition.by(answer, within=groups)
    first = ballots.min(torch.arange(len(answer), device=answer.device))
    # What matters most is sorted by last.
    keys = [-first] if score is None else [-answer[first], ballots.sum(score.double())]
    order = torch.arange(len(first), device=answer.device)
    for key in (*keys, ballots.size()):
        order = order[key[order].argsort(stable=True)]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=answer.device))
    rank = torch.where(answer >= 0, ballots.spread(rank), -1)
    return ((answer >= 0) & (rank == groups.spread(groups.max(rank)))).float()
