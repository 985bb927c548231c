"""Recipes that steer the entropy of reasoning: by the tokens that move it most, by difficulty."""

from __future__ import annotations

from typing import Literal

from stratagem.catalogue import paper
from stratagem.objectives import (
    AtLargestCovariance,
    Clip,
    ControlledByDifficulty,
    CovarianceMask,
    PolicyGradient,
    TokenMean,
    Unclipped,
)
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.rewards import WindowEntropyReward

__all__ = ["ares_aepo", "entropy_mechanism_cov"]


@paper(
    "2505.22617",
    title="The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
    family="reasoning",
    roles=("correction", "gate", "regularizer"),
    year=2025,
    base="grpo",
)
def entropy_mechanism_cov(
    form: Literal["clip", "kl"] = "kl",
    share: float | None = None,
    low: float = 1.0,
    high: float = 5.0,
    clip: float = 0.2,
    coefficient: float = 1.0,
    minibatches: int = 8,
) -> Recipe:
    """GRPO that holds back the few tokens with the largest ``c = (A - mean A) (log pi - mean log pi)``, by which the
    entropy falls.

    ``kl`` (KL-Cov): ``-mean rho A + coefficient 1[largest c] |log pi - log pi_old|``, without PPO's clip, at
    a ``share`` of 0.002 of the tokens. ``clip`` (Clip-Cov): PPO's clip, and no gradient from a ``share`` of 0.0002 of
    the tokens, drawn from those with ``low < c < high``. At least one token either way (``least`` of the parts); in
    batches of a few hundred that is far more than the published share, and ``c`` seldom reaches the published band.

    KL-Cov does nothing until the policy has moved from where the update began, so each batch gets several updates:
    ``minibatches`` is the published batch of 256 prompts over its mini-batch of 32. Defaults are those of the released
    code. Its experiments also drop groups of equal rewards (``{"sampler": "dynamic_sampling"}``), the baseline's as
    well. :mod:`stratagem.study.entropy_law` has the paper's law of return and entropy.

    share: None for the form's own.  low, high, clip: used by Clip-Cov.  coefficient: used by KL-Cov.
    """
    base = grpo(clip).replace(name="entropy_mechanism_cov", base="grpo", optimization=AdamW(minibatches=minibatches))
    if form == "clip":
        mask = CovarianceMask(2e-4 if share is None else share, low, high)
        return base.replace(objective=PolicyGradient(gate=Clip(clip, clip), aggregation=TokenMean(), correction=mask))
    penalty = coefficient * AtLargestCovariance(share=2e-3 if share is None else share)
    return base.replace(objective=PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), regularizer=penalty))


@paper(
    "2510.08457",
    title="ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping",
    family="reasoning",
    roles=("reward", "regularizer"),
    year=2025,
    base="grpo",
)
def ares_aepo(
    triggers: tuple[int, ...] | None = None, width: int = 4, alpha: float = 0.5, kl_coefficient: float = 1e-2
) -> Recipe:
    """GRPO with ``R = R_task + e_d(n - T_d)`` and ``kl_coefficient * beta_d KL``: thoughts that leave the policy unsure
    (``n``) cost where questions are easy and pay where they are hard (``d``).

    Difficulty is the success of a prompt's rollouts. See :class:`~stratagem.rewards.WindowEntropyReward`, which counts
    the thoughts, and :class:`~stratagem.objectives.ControlledByDifficulty`, which moves ``beta_d``. With ``alpha`` and
    ``{"rewards.window_entropy_reward.alpha_rate": 0, "objective.regularizer.term.rate": 0}`` at 0 it is GRPO with a KL.
    Defaults are those of the released code. It also drops groups of equal rewards (``{"sampler": "dynamic_sampling"}``)
    and begins with supervision on answers that are longer where questions are harder, which is no part of this recipe.
    The branching at uncertain tokens that the paper describes is not in the released code, and not here.

    triggers: ids of the tokens a thought may begin with, of the policy's tokenizer; None: any token.
    """
    penalised = PolicyGradient(regularizer=kl_coefficient * ControlledByDifficulty())
    return grpo().replace(
        name="ares_aepo",
        base="grpo",
        rewards=(WindowEntropyReward(triggers, width, alpha),),
        objective=penalised,
    )
