"""Rewards shaped by a potential, and whether a change of the rewards changes which actions are best."""

from __future__ import annotations

import dataclasses

from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.lab.mdp import TabularMDP


def potential_shaped(mdp: TabularMDP, potential: Float[Tensor, " states"]) -> TabularMDP:
    """The process with ``gamma E[Phi(s')] - Phi(s)`` added to every reward, 0 being the potential where it ends.

    It leaves ``Q*(s, a) - Phi(s)`` for values, so the same actions are best (Ng et al. 1999). Raises
    :class:`InputError` for a potential that is not one number per state, or not finite.
    """
    if tuple(potential.shape) != (mdp.states,) or not bool(potential.isfinite().all()):
        raise InputError(f"potential of shape {tuple(potential.shape)}: must be {mdp.states} finite numbers")
    potential = potential.double()
    ahead = mdp.discount * mdp.transition @ potential
    return dataclasses.replace(mdp, reward=mdp.reward + ahead - potential.unsqueeze(1))


def best_actions(mdp: TabularMDP, tolerance: float = 1e-8) -> Bool[Tensor, "states actions"]:
    """Which actions are best, by value iteration: all those within ``tolerance`` of the best one."""
    values = mdp.value_iteration(tolerance=tolerance / 10)
    return values >= values.amax(-1, keepdim=True) - tolerance


def keeps_best_actions(mdp: TabularMDP, changed: TabularMDP, tolerance: float = 1e-8) -> bool:
    """Whether the same actions are best in every state of two processes: true of any shaping by a potential."""
    return bool((best_actions(mdp, tolerance) == best_actions(changed, tolerance)).all())
