"""Recipes for policies that denoise their answers instead of writing them token by token."""

from __future__ import annotations

from stratagem.advantages import GroupCentered
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, LengthPower, PolicyGradient, ProductRatio
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.sampling import Denoising, MaskedElbo

__all__ = ["gdpo_diffusion"]


@paper(
    "2510.08554",
    title="Improving Reasoning for Diffusion Language Models via Group Diffusion Policy Optimization",
    family="objectives",
    roles=("sampler", "ratio", "aggregation"),
    year=2025,
    base="grpo",
)
def gdpo_diffusion(
    points: int = 3, clip: float = 0.5, kl_coefficient: float = 0.0, group_size: int = 6, epochs: int = 1
) -> Recipe:
    """GDPO for masked diffusion: ``mean_g (1/|y_g|) min(r_g A_g, clip(r_g) A_g)`` with one ratio per answer,
    ``r_g = exp(ELBO(y_g) - ELBO_old(y_g))``, its ELBO by Gauss quadrature in time and one random mask per node.

    ``A_g = R_g - mean R``, not divided by a standard deviation. ``points`` nodes cost as many evaluations of the
    network; the paper's results are with 3, and 2 bring most of the gain. Masks are the same for new, old and reference
    policy. The log-ratio is clamped to [-20, 20]. ``kl_coefficient`` adds k3 of the ELBO to the reference's, weighted
    by ``1/|y_g|`` like the rest; the paper writes its KL outside of that factor.

    The objective is as several summaries of the paper agree on it; its text was not available. ``clip = 0.5``,
    ``group_size = 6`` and no KL are the values of the implementation in NVIDIA's NeMo RL, which says it follows the
    published runs; how often the paper updates on one batch (``epochs``) was not to be found. NeMo RL divides ELBO
    differences by the length before it clips (``objective.ratio=geometric_mean_ratio``,
    ``objective.aggregation=sequence_mean``), which has the same gradient at ratio 1, and hides a fixed count of tokens
    (``sampler.likelihood.masks=count_by_time``, ``sampler.likelihood.rounding=down``).
    """
    return Recipe(
        name="gdpo_diffusion",
        base="grpo",
        sampler=Denoising(group_size=group_size, likelihood=MaskedElbo("gauss", points)),
        advantage=GroupCentered(),
        objective=PolicyGradient(
            ratio=ProductRatio("trajectory"),
            gate=Clip(clip, clip),
            aggregation=LengthPower(2.0),
            regularizer=kl_coefficient * KL("k3", "trajectory") if kl_coefficient else None,
        ),
        optimization=AdamW(epochs=epochs),
    )
