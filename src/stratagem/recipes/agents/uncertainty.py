"""Agents that learn by how sure they were: credit modulated by entropy, and entropy held near what it was."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import EntropyModulated, GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import EntropyBand, EntropyBonus
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo, ppo
from stratagem.schedules import PhasedDecay

__all__ = ["empg", "epo"]


@paper(
    "2509.09265",
    title="Harnessing Uncertainty: Entropy-Modulated Policy Gradients for Long-Horizon LLM Agents",
    family="agents",
    roles=("advantage",),
    year=2025,
    base="grpo",
)
def empg(scaling: float = 1.0, clarity: float = 1.0, bonus: float = 0.1) -> Recipe:
    """GRPO whose turns count by the policy's certainty: ``A'_t = g_t A + bonus f_{t+1}``, less its mean over turns.

    ``g_t`` falls with the mean token entropy of the turn and is 1 on average, ``f_{t+1}`` with that of the next one;
    see :class:`~stratagem.advantages.EntropyModulated`. The score of an action grows with entropy,
    ``E |grad_z log pi(a)|^2 = 1 - sum_a pi(a)^2`` by the logits ``z``, so that turns of which the policy is sure hardly
    move it; this gives them more weight.

    scaling, clarity: the exponents ``k`` and ``k'`` of ``g`` and ``f``.  bonus: ``zeta``. Defaults are those of the
    authors' published pseudo-code; the paper tunes ``bonus`` by task.
    """
    return grpo().replace(
        name="empg",
        base="grpo",
        advantage=EntropyModulated(GroupStandardized(), scaling, clarity, bonus),
    )


@paper(
    "2509.22576",
    title="EPO: Entropy-regularized Policy Optimization for LLM Agents Reinforcement Learning",
    family="agents",
    roles=("regularizer", "schedule"),
    year=2025,
    base="ppo",
)
def epo(
    form: Literal["constant", "hinge"] = "constant",
    entropy_weight: float = 0.001,
    smoothing: float = 1.0,
    low: float = 0.0,
    high: float = 2.0,
    penalty: float = 0.05,
    unit: Literal["token", "turn"] = "token",
    turns: int = 30,
    batches: int = 150,
    include_current: bool = True,
) -> Recipe:
    """PPO with ``-entropy_weight mean_t (H_t - smoothing beta P_t)`` in its loss: ``P`` penalises unusual entropies.

    ``P_t`` is 0 while ``low U < H_t < high U``, with ``U`` the mean entropy of turns of that number over past batches
    (:class:`~stratagem.objectives.EntropyBand`); ``beta`` decays over the run
    (:class:`~stratagem.schedules.PhasedDecay`). The mean is over all tokens that may train.

    In the ``constant`` form, which is the published one, ``P`` is ``penalty`` outside the band. That has no gradient,
    so a policy learns exactly as under PPO with the same entropy bonus, and only the reported loss differs. The
    ``hinge`` form has a gradient and is a reconstruction of what the paper describes.

    entropy_weight: 0 is PPO.  smoothing: 0 is PPO with an entropy bonus.
    low, high, penalty: as published for ScienceWorld; ALFWorld has ``penalty`` 0.1.
    unit: ``turn`` for the released code's mode by sequence.
    turns: most turns of an episode; batches in which no turn is in the second half have no ``P``.
    batches: of the run, over which ``beta`` decays.
    include_current: whether ``U`` counts the batch at hand.

    The paper runs it on GRPO, too: set ``advantage`` to ``group_standardized`` and ``objective.critic`` to null.
    """
    recipe = ppo().replace(name="epo", base="ppo")
    if not entropy_weight:
        return recipe
    band = EntropyBand(form, low, high, penalty, unit, turns, include_current)
    if not smoothing:
        return recipe.with_values({"objective.regularizer": entropy_weight * EntropyBonus()})
    return recipe.with_values({"objective.regularizer": entropy_weight * (EntropyBonus() + smoothing * band)}).replace(
        schedules=(PhasedDecay("objective.regularizer.term.terms.scaled_regularizer.factor", batches, smoothing),)
    )
