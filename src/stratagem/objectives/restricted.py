"""A loss on a part of the batch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from stratagem.experience import Experience, Loss, PolicyOutput
from stratagem.parts import Objective

Share = Literal["demonstrations", "rollouts", "latents", "tokens"]


@dataclass(frozen=True)
class Restricted(Objective):
    """``of`` on a part of the batch, whose normalisers see nothing else: no other token trains, and none is counted.

    to: ``demonstrations`` or ``rollouts`` (trajectories by the task's solver, or by a policy), ``latents`` or
    ``tokens`` (actions that are vectors, or vocabulary). A batch that does not tell them apart is all rollouts and all
    tokens. Metrics of demonstrations and latents are named after them, ``demonstrations/policy_loss``.
    """

    of: Objective
    to: Share

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        loss = self.of(out, x.masked(_share(x.whole, self.to), self.to))
        if self.to in ("rollouts", "tokens"):
            return loss
        return Loss(loss.loss, {f"{self.to}/{name}": value for name, value in loss.metrics.items()})

    def has_signal(self, x: Experience) -> bool:
        shared = x.masked(_share(x.whole, self.to), self.to)
        return bool(shared.learnable().any()) and self.of.has_signal(shared)


def _share(x: Experience, to: Share) -> Bool[Tensor, " tokens"]:
    if to in ("latents", "tokens"):
        marked = x.latent
    else:
        marked = None if x.demonstrated is None else x.trajectory_of_token.spread(x.demonstrated)
    if marked is None:
        marked = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
    return marked if to in ("demonstrations", "latents") else ~marked
