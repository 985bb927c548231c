"""Losses on parts of the batch alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from stratagem.errors import InputError
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

    tags: ClassVar[frozenset[str]] = frozenset()

    of: Objective
    to: Share

    def tagged(self) -> frozenset[str]:
        """Where nothing but demonstrations is learned from, it is cloning, whatever the loss."""
        cloned = {"learning.family.cloning", "learning.data.best_only", "learning.off_policy.cloning"}
        return frozenset(cloned) if self.to == "demonstrations" else super().tagged()

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        loss = self.of(out, x.masked(_share(x.whole, self.to), self.to))
        if self.to in ("rollouts", "tokens"):
            return loss
        return Loss(loss.loss, {f"{self.to}/{name}": value for name, value in loss.metrics.items()})

    def has_signal(self, x: Experience) -> bool:
        shared = x.masked(_share(x.whole, self.to), self.to)
        return bool(shared.learnable().any()) and self.of.has_signal(shared)


@dataclass(frozen=True)
class RoleLosses(Objective):
    """``sum_r of[r]`` with the loss of every role on its own tokens alone: normalisers see nothing of the others.

    Roles beyond the last have the last one's loss, and so has a batch without ``turn_role``. Metrics are named after
    roles, ``role_1/policy_loss``.

    Raises :class:`InputError` for no loss at all.
    """

    tags: ClassVar[frozenset[str]] = frozenset()

    of: tuple[Objective, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.of:
            raise InputError(f"{self.part_name()}.of = (): must hold a loss for every role")

    def __call__(self, out: PolicyOutput, x: Experience) -> Loss:
        losses = [loss(out, self._own(x, role)) for role, loss in enumerate(self.of)]
        named = {f"role_{r}/{name}": value for r, loss in enumerate(losses) for name, value in loss.metrics.items()}
        return Loss(sum((loss.loss for loss in losses[1:]), losses[0].loss), named)

    def has_signal(self, x: Experience) -> bool:
        own = [self._own(x, role) for role in range(len(self.of))]
        return any(
            bool(mine.learnable().any()) and loss.has_signal(mine) for loss, mine in zip(self.of, own, strict=True)
        )

    def _own(self, x: Experience, role: int) -> Experience:
        """The batch in which only this role's tokens may train."""
        whole, last = x.whole, len(self.of) - 1
        if whole.turn_role is None:
            mine = torch.full((whole.tokens,), role == last, device=whole.device)
        else:
            mine = whole.turn_of_token.spread(whole.turn_role.clamp(max=last) == role)
        return x.masked(mine, ("role", role, last))


def _share(x: Experience, to: Share) -> Bool[Tensor, " tokens"]:
    if to in ("latents", "tokens"):
        marked = x.latent
    else:
        marked = None if x.demonstrated is None else x.trajectory_of_token.spread(x.demonstrated)
    if marked is None:
        marked = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
    return marked if to in ("demonstrations", "latents") else ~marked
