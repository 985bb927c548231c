"""Recipes that put rewards of unlike spread on one scale: by their deviations, or by their ranks."""

from __future__ import annotations

from stratagem.advantages import SpreadWeighted
from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.rewards import RewardWeights

__all__ = ["dvao"]


@paper(
    "2605.25604",
    title="DVAO: Dynamic Variance-adaptive Advantage Optimization for Multi-reward Reinforcement Learning",
    family="reasoning",
    roles=("advantage",),
    year=2026,
    base="grpo",
)
def dvao(weights: tuple[float, ...] | None = None, group_size: int = 16) -> Recipe:
    """GRPO with the centred rewards over the sum of their deviations: ``A_i = sum_k w_k (R_ik - mean_g R_k) / D_g``.

    ``D_g = sum_k w_k std_g R_k``, with the deviations of the population. That is the sum of the standardised advantages
    of all rewards, each weighed by its share of ``D_g`` (:class:`~stratagem.advantages.SpreadWeighted`); the formula is
    from a summary of the paper, whose own text was not available. GRPO divides the same numerator by the deviation of
    the weighted sum, which is never larger: in a group, DVAO is GRPO times a number in [0, 1]. With a single reward it
    is GRPO with the population's deviation.

    What it is compared with there: ``--set advantage=group_standardized`` combines the rewards,
    ``--set advantage=per_reward`` the advantages; GDPO whitens the latter over the batch
    (``BatchWhitened(PerReward())``).

    weights: of the rewards, in the task's order, each at least 0; None: the task's own. Only their proportions matter.
    group_size: answers to a prompt.
    """
    return grpo(group_size=group_size).replace(
        name="dvao",
        base="grpo",
        rewards=() if weights is None else (RewardWeights(weights),),
        advantage=SpreadWeighted(),
    )
