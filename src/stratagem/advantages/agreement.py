"""Advantages that follow how far the answers to a prompt agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float, Int
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.advantages.group import GroupCentered
from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.partition import Partition
from stratagem.parts import Advantage

LEAST_MASS = 1e-12
"""A cluster's share of the probability counts as at least this, so that its logarithm is a number."""


@dataclass(frozen=True)
class SemanticEntropyScaled(Advantage):
    """``A'_i = A_i f(strength * u)``: smaller steps where the answers of a group disagree (arXiv 2505.12346).

    ``u = SE / log G`` in [0, 1] is the semantic entropy of the group's ``G`` rollouts over its greatest value: 0 where
    all mean the same, 1 where no two do. All rollouts of a group share one factor ``f``, which has no gradient:

    - ``reciprocal``: ``1 / (1 + strength u)``;  ``linear``: ``1 - strength u``;
    - ``exponential``: ``exp(-strength u)``;  ``focal``: ``(1 - u)^strength``.

    The rollouts are sorted by meaning into clusters ``C_1 .. C_K``, by default those of one answer:

    - ``counts``: ``SE = -sum_k n_k / G log(n_k / G)``, which never exceeds ``log G``;
    - ``likelihood``: ``SE = -(1 / K) sum_k log p(C_k)``, with ``p(C_k)`` the share of the cluster in what the
      probabilities of all rollouts add up to. It may exceed ``log G``; ``u`` is then 1.

    The paper's text and tables were not available, only reports of them. These name the second estimator, and linear,
    exponential and focal forms without saying what they look like, and an implementation with the reciprocal: the
    forms are reconstructions, and so is that a rollout's probability is the geometric mean over its tokens (the
    product would leave one short rollout with all the mass). The first estimator is the discrete semantic entropy of
    arXiv 2302.09664, and the default since it is bounded.

    Demonstrations are no rollouts: they get the factor of their group, and do not count in it. A group of one rollout
    has the factor 1. With ``likelihood``, rollouts without a token that may train do not count either.

    Answers that are worded alike share a key where the sampler asks for it (``Rollouts.similar_answers``). To compare
    meanings otherwise, by entailment say, derive a part and override :meth:`meaning`.

    of: the advantage to scale.  form, estimator: as above.
    strength: 0 leaves the advantage as it is; at most 1 for ``linear``. The default takes at most 4 % away.
    unreadable: answers that cannot be read are all alike (``shared``), so that being cut off does not pass for
    disagreement, or each its own (``apart``).

    Raises ``ValueError`` when the batch has no answers (or for ``likelihood`` no ``behavior_logp``, or one of a token
    that may train that is not finite).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"answer"})

    of: Advantage = GroupCentered()
    form: Literal["reciprocal", "linear", "exponential", "focal"] = "reciprocal"
    strength: Annotated[FiniteFloat, Ge(0)] = 0.0417
    estimator: Literal["counts", "likelihood"] = "counts"
    unreadable: Literal["shared", "apart"] = "shared"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form == "linear" and self.strength > 1:
            raise InputError(f"{self.part_name()}.strength = {self.strength}: must be at most 1 for form = linear")

    def needs(self) -> frozenset[str]:
        return super().needs() | (frozenset({"behavior_logp"}) if self.estimator == "likelihood" else frozenset())

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        credit = self.of(x)
        return credit * x.group_of_token.spread(self.factor(x).to(credit.dtype))

    def factor(self, x: Experience) -> Float[Tensor, " groups"]:
        """``f`` of every group."""
        strength, u = self.strength, self.disagreement(x)
        if self.form == "reciprocal":
            return 1 / (1 + strength * u)
        if self.form == "linear":
            return 1 - strength * u
        return (-strength * u).exp() if self.form == "exponential" else (1 - u) ** strength

    def disagreement(self, x: Experience) -> Float[Tensor, " groups"]:
        """``u`` of every group, in [0, 1]; 0 where fewer than two rollouts count."""
        counted, mass = self._mass(x)
        clusters = Partition.by(self.meaning(x), within=x.group_of_trajectory)
        group = Partition(x.group_of_trajectory.labels[clusters.first()], x.groups)
        present = clusters.sum(counted.long()) > 0
        of_cluster = clusters.sum(mass)
        share = of_cluster / group.spread(group.sum(of_cluster)).where(present, 1.0)
        if self.estimator == "counts":
            entropy = group.sum(torch.special.entr(share))
        else:
            surprise = torch.where(present, -share.clamp(min=LEAST_MASS).log(), 0.0)
            entropy = group.sum(surprise) / group.sum(present.long()).clamp(min=1)
        size = x.group_of_trajectory.sum(counted.long())
        return torch.where(size > 1, entropy / size.clamp(min=2).double().log(), 0.0).clamp(0, 1)

    def meaning(self, x: Experience) -> Int[Tensor, " trajectories"]:
        """A key for what each trajectory says: within a group, equal keys have one meaning."""
        if x.answer is None:
            raise ValueError(f"{self.part_name()} needs x.answer")
        if self.unreadable == "shared":
            return x.answer
        lone = torch.arange(x.trajectories, device=x.device)
        return Partition.by(x.answer, torch.where(x.answer < 0, lone, -1)).labels

    def _mass(self, x: Experience) -> tuple[Tensor, Float[Tensor, " trajectories"]]:
        """Which trajectories count, and how much of their group each is, up to a factor of the group's."""
        own = x.played()
        if self.estimator == "counts":
            return own, own.double()
        if x.behavior_logp is None:
            raise ValueError(f"{self.part_name()} needs x.behavior_logp")
        logp = x.of_learnable(x.behavior_logp)
        total = x.trajectory_of_token.sum(logp).double()
        if not bool(total.isfinite().all()):
            bad = int(torch.nonzero(~logp.isfinite())[0])
            raise ValueError(f"{self.part_name()}: x.behavior_logp of token {bad} is {float(logp[bad])}")
        length = x.trajectory_of_token.size() if x.mask is None else x.trajectory_of_token.sum(x.mask.long())
        counted = own & (length > 0)
        mean = torch.where(counted, total / length.clamp(min=1), -torch.inf)
        likeliest = x.group_of_trajectory.max(mean)
        relative = mean - x.group_of_trajectory.spread(likeliest.where(likeliest.isfinite(), 0.0))
        return counted, relative.exp()
