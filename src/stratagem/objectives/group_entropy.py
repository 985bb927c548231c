"""Entropy over what was tried in a group, as a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.masking import only
from stratagem.parts import Objective


@dataclass(frozen=True)
class GroupEntropy(Objective):
    """``-mean_g H(softmax_{i in g} s_i)`` with ``s_i`` the mean log-probability of trajectory ``i``'s tokens.

    With a positive factor, a bonus for staying undecided between the trajectories of a group: meant for groups that
    hold every candidate once (:class:`~stratagem.sampling.Candidates`). The mean is over tokens that may train; a
    trajectory without any is no candidate, and a group without candidates adds 0. Metric: ``group_entropy``, in nats.
    """

    whole_groups: ClassVar[bool] = True
    tags: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        out, x = self.blanked(out, x, "output.logp")
        kept = x.learnable().to(out.logp.dtype)
        tokens = x.trajectory_of_token.sum(kept)
        there = tokens > 0
        score = x.trajectory_of_token.sum(x.of_learnable(out.logp)) / tokens.clamp(min=1)
        group = x.group_of_trajectory
        # Of a group without candidates the sum of no exponentials is taken as that of one.
        logits = torch.where(there, score, -torch.inf)
        some = group.sum(there.to(score.dtype)) > 0
        total = torch.where(some, group.logsumexp(torch.where(group.spread(some), logits, 0.0)), 0.0)
        logp = only(there, score - group.spread(total))
        entropy = -group.sum(only(there, logp.exp() * logp)).sum() / max(x.whole.groups, 1)
        return Loss(-entropy, {"group_entropy": entropy.detach()})
