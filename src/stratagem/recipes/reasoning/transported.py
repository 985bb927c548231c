"""Recipes that put rewards of unlike spread on one scale: by their deviations, or by their ranks."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GaussianRanks, SpreadWeighted
from stratagem.catalogue import paper
from stratagem.objectives import Clip, EntropyRange, PolicyGradient, SequenceMean
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.rewards import LengthPlateau, RewardWeights
from stratagem.sampling import Disagreeing

__all__ = ["dvao", "g2rpo_openvlthinkerv2"]


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


@paper(
    "2604.08539",
    title="OpenVLThinkerV2: A Generalist Multimodal Reasoning Model for Multi-domain Visual Tasks",
    family="reasoning",
    roles=("advantage", "reward", "regularizer"),
    year=2026,
    base="grpo",
    tags=("limits.question.multimodality",),
)
def g2rpo_openvlthinkerv2(
    group_size: int = 8,
    over: Literal["group", "domain"] = "group",
    length: tuple[int, int, int, int] | None = None,
    length_weight: float = 0.1,
    entropy: tuple[float, float] | None = None,
    entropy_weight: float = 0.01,
) -> Recipe:
    """GRPO with returns mapped to normal quantiles by rank, ``A_i = mean of Phi^-1((k - 1/2) / N)`` over their ranks.

    Groups of equal returns are left out, and there is no KL. Two shapings are part of the paper's method, a reward for
    lengths on a plateau (:class:`~stratagem.rewards.LengthPlateau`, added before returns are ranked) and a penalty for
    mean entropies out of a range (:class:`~stratagem.objectives.EntropyRange`). Their thresholds are set by hand for
    each kind of task and were not available, so both are off unless given; the two weights, the group size and the
    clip range are reconstructions, too. With thresholds per task, compose the parts, one for each domain.

    group_size: answers to a prompt.  over: whom an answer is ranked with, its group or its whole domain.
    length: where the reward begins, is full, fades and ends, in tokens.  length_weight: what a full one adds.
    entropy: edges of the range, in nats.  entropy_weight: of the penalty.
    """
    return Recipe(
        name="g2rpo_openvlthinkerv2",
        base="grpo",
        sampler=grpo(group_size=group_size).sampler,
        rewards=() if length is None else (LengthPlateau(*length, weight=length_weight),),
        selections=(Disagreeing(),),
        advantage=GaussianRanks(over),
        objective=PolicyGradient(
            gate=Clip(0.2, 0.2),
            aggregation=SequenceMean(),
            regularizer=None if entropy is None else entropy_weight * EntropyRange(*entropy),
        ),
    )
