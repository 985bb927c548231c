"""The projection of a categorical policy on the actions that are allowed, before anything is drawn from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError


@dataclass(frozen=True, eq=False)
class Projected:
    """``argmin KL(pi' || pi)`` under ``pi'(allowed) = 1``, row by row.

    logp: ``log pi'``; -inf where not allowed, and everywhere in a row that is empty.
    mass: ``pi(allowed)``, which is also the chance that one draw from ``pi`` is allowed.
    empty: nothing allowed has any probability; there is nothing to draw from.
    """

    logp: Float[Tensor, "*rows actions"]
    mass: Float[Tensor, " *rows"]
    empty: Bool[Tensor, " *rows"]

    @property
    def divergence(self) -> Float[Tensor, " *rows"]:
        """``KL(pi' || pi) = -log pi(allowed)``, the least of any distribution on the allowed actions."""
        return -self.mass.log()


def project(logits: Float[Tensor, "*rows actions"], allowed: Bool[Tensor, "*rows actions"]) -> Projected:
    """``pi'(a) = pi(a) 1[a allowed] / pi(allowed)`` with ``pi = softmax(logits)``.

    logits: -inf for actions never taken; NaN and +inf are refused with :class:`InputError`, for what a policy says
    that is no distribution has no projection.
    """
    if logits.shape != allowed.shape:
        raise InputError(f"projection: logits {list(logits.shape)} and allowed {list(allowed.shape)} differ in shape")
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise InputError("projection: a logit is NaN or +inf")
    possible = allowed & ~logits.isneginf()
    empty = ~possible.any(-1)
    # In an empty row the logits stay, so that no softmax of nothing is taken; what it says is overwritten.
    usable = torch.where(empty.unsqueeze(-1), torch.zeros_like(logits), logits)
    kept = torch.where(possible | empty.unsqueeze(-1), usable, -torch.inf)
    logp = torch.log_softmax(kept, -1).masked_fill(empty.unsqueeze(-1), -torch.inf)
    mass = (torch.logsumexp(kept, -1) - torch.logsumexp(usable, -1)).exp().masked_fill(empty, 0.0)
    return Projected(logp, mass, empty)


def entropy(logp: Float[Tensor, "*rows actions"]) -> Float[Tensor, " *rows"]:
    """``-sum pi log pi`` with a gradient that is finite where actions are impossible, to which it is 0."""
    possible = ~logp.isneginf()
    finite = torch.where(possible, logp, 0.0)
    return -(torch.where(possible, finite.exp(), 0.0) * finite).sum(-1)


def drawn(logp: Sequence[float], uniform: float) -> int:
    """The place at which the cumulated probabilities first exceed ``uniform`` in [0, 1); never one of probability 0."""
    reached, last = 0.0, -1
    for place, value in enumerate(logp):
        if value > -math.inf and math.exp(value) > 0:
            reached, last = reached + math.exp(value), place
            if reached > uniform:
                break
    if last < 0:
        raise ValueError("nothing to draw from")
    return last
