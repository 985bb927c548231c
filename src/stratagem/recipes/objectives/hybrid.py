"""Chains in which tokens and latent vectors alternate."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, DirectionKL, Penalty, PolicyGradient, Restricted, TokenMean
from stratagem.parts import Objective
from stratagem.recipe import Recipe
from stratagem.sampling import DynamicSampling

__all__ = ["hylar"]


@paper(
    "2604.20328",
    title="Hybrid Latent Reasoning with Decoupled Policy Optimization",
    family="objectives",
    roles=("objective", "regularizer", "gate"),
    year=2026,
    base="grpo",
    tags=("limits.question.multimodality",),
)
def hylar(
    clip: float = 0.2,
    latent_clip: float = 0.1,
    latent_dual: float = 3.0,
    latent_weight: float = 0.5,
    kl_coefficient: float = 0.05,
    latent_kl_coefficient: float = 0.01,
    latent_kl: Literal["exact", "rollout"] = "exact",
    concentration: float = 0.01,
    temperature: float = 0.9,
    group_size: int = 8,
) -> Recipe:
    """Decoupled clips: ``L_tokens + alpha L_latents + beta_tokens KL_tokens + beta_latents KL_latents``.

    Each kind of action has its own clip, and its own mean over its own rows; both have GRPO's advantage. A latent is a
    direction drawn from a von Mises-Fisher distribution of fixed concentration ``kappa``, so its ratio is
    ``exp(kappa <mu - mu_old, z>)`` and its KL, in closed form, ``kappa A_D(kappa) (1 - <mu, mu_ref>)``.

    **The published concentration of 0.01 turns both off.** A ratio then lies in [exp(-0.02), exp(0.02)] =
    [0.980, 1.020], so a clip at 0.1 never binds, and its gradient is a hundredth of what it is at 1; the KL is about
    ``kappa^2 / D``, times its coefficient. What matters is ``kappa / D``: at ``kappa = D`` the mean cosine of a latent
    to its direction is about 0.6. ``latents/clip_fraction`` tells whether the clip binds, and
    ``latents/concentration_per_dim`` how much the latents can say.

    latent_weight: ``alpha``.  latent_kl: ``rollout`` is what the released code computes
    (:class:`~stratagem.objectives.DirectionKL`).  concentration: ``kappa`` in the KL; a world of hybrid policies sets
    it to its own.  kl_coefficient, latent_kl_coefficient: 0 computes no KL of that kind.

    Clips, weights and sampling are those of the released configuration. It clamps log-ratios to [-10, 10] and we to
    [-20, 20]; below a concentration of 5 no latent can tell. It keeps prompts with an accuracy from 0.1 to 0.9: with
    groups of 8 and rewards of 0 or 1 these are the groups that disagree.
    """
    tokens = PolicyGradient(
        gate=Clip(clip, clip),
        aggregation=TokenMean(),
        regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
    )
    latents = PolicyGradient(gate=Clip(latent_clip, latent_clip, latent_dual), aggregation=TokenMean())
    objective: Objective = Restricted(tokens, "tokens") + latent_weight * Restricted(latents, "latents")
    if latent_kl_coefficient:
        penalty = Penalty(latent_kl_coefficient * DirectionKL(concentration, latent_kl), TokenMean())
        objective = objective + Restricted(penalty, "latents")
    return Recipe(
        name="hylar",
        base="grpo",
        sampler=DynamicSampling(group_size=group_size, temperature=temperature),
        advantage=GroupStandardized(),
        objective=objective,
    )
