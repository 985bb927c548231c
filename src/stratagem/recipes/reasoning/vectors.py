"""Recipes for rewards that are vectors: sets of answers under random weights, and weights that move."""

from __future__ import annotations

from typing import Literal

from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo, rloo
from stratagem.rewards import BestCandidate, RewardWeights
from stratagem.schedules import FrontGain, GradientInfluence

__all__ = ["dynamic_reward_weighting", "gradient_reward_weighting", "vpo"]

_DYNAMIC = "Learning to Optimize Multi-Objective Alignment Through Dynamic Reward Weighting"


@paper(
    "2605.22817",
    title="Vector Policy Optimization: Training for Diversity Improves Test-Time Search",
    family="reasoning",
    roles=("reward",),
    year=2026,
    base="grpo",
)
def vpo(
    draws: int = 8,
    concentration: float = 1.0,
    weights: tuple[float, ...] | None = None,
    group_size: int = 8,
) -> Recipe:
    """GRPO with sets of candidates: ``R = (1 / M) sum_m max_k <w_m, r_k>`` over ``w_m ~ Dirichlet(c, ..., c)``.

    One trajectory writes ``K`` candidates, each with a vector of rewards (:class:`~stratagem.rewards.BestCandidate`);
    the task says how many: ``--task sets:TASK,candidates=3`` makes a set of any task that is answered in one turn. All
    tokens of a trajectory get its set's advantage. The paper's own text was not available. The formula is from
    summaries of it; that the weights are shared by a group is, too; ``draws`` and ``concentration`` are from another
    implementation.

    What it is compared with there, each a setting of the same part: fixed ``weights`` with sets (a best-of-K reward);
    random weights without sets, on a task that has none (near the mean of all rewards); and neither, which is GRPO.

    draws: ``M``, for each group.  concentration: ``c``, above 0.  weights: fixed ones, one for each reward of a
    candidate; None: random ones.  group_size: trajectories of a prompt.
    """
    return grpo(group_size=group_size).replace(
        name="vpo", base="grpo", rewards=(BestCandidate(draws, concentration, weights),)
    )


@paper(
    "2509.11452",
    title=_DYNAMIC,
    family="reasoning",
    roles=("reward", "schedule"),
    year=2025,
    base="rloo",
)
def dynamic_reward_weighting(
    weights: tuple[float, ...] | None = None,
    every: int = 1,
    host: Literal["rloo", "grpo"] = "rloo",
    group_size: int = 8,
) -> Recipe:
    """Fixed weights, and all rewards scaled by ``0.5 + 1.5 tanh(dHV)``: more when the front was just enlarged.

    ``dHV`` is the hypervolume that the validation rewards of the policy add to those of earlier ones, above those it
    began with (:class:`~stratagem.schedules.FrontGain`); before the first one the factor is 1. It is the paper's method
    for weights that the user prefers; :func:`gradient_reward_weighting` is its other one, for none.

    A common factor of all rewards cancels in the group standardisation of GRPO, one of the hosts in the paper: there
    the method changes nothing but for the epsilon. It acts with advantages that are not standardised, so ``rloo`` is
    the default. Even there Adam and the limit of the gradient's norm divide out a factor that stays the same; what is
    left is how it differs from batch to batch, and what it weighs against terms that it does not scale, such as a KL.

    weights: of the rewards, in the task's order; None: the task's own.  every: batches between validations, each on a
    fresh batch; the released code validates after every one.  host: whose advantages and loss it is.
    group_size: answers to a prompt.
    """
    chosen = rloo() if host == "rloo" else grpo(kl_coefficient=0.001)
    return chosen.replace(
        name="dynamic_reward_weighting",
        base=host,
        sampler=grpo(group_size=group_size).sampler,
        rewards=(RewardWeights(weights),),
        schedules=(FrontGain(every),),
    )


@paper(
    "2509.11452",
    title=_DYNAMIC,
    family="reasoning",
    roles=("reward", "schedule"),
    year=2025,
    base="grpo",
)
def gradient_reward_weighting(
    weights: tuple[float, ...] | None = None,
    step: float = 0.1,
    host: Literal["rloo", "grpo"] = "grpo",
    group_size: int = 8,
) -> Recipe:
    """Weights of the rewards that move on every batch, ``w_k <- softmax_k(log w_k + step <g_k, sum_j g_j>)``.

    ``g_k`` is the policy gradient of reward ``k`` alone, so weight goes to rewards whose gradient helps all of them
    (:class:`~stratagem.schedules.GradientInfluence`); the batch is learned from with the new weights. It is the paper's
    method for a user without a preference; :func:`dynamic_reward_weighting` is its other one. It costs a backward pass
    for every reward. The gradients are of all weights, where the released scripts take those of some layers.

    ``step`` is per unit of squared gradient. Where gradients are small the weights hardly move; then
    ``--set schedules.gradient_influence.normalized=true`` measures them by their mean length. At 0 it is the linear
    scalarisation with fixed weights.

    weights: to begin with, in the task's order; None: the task's own. They are scaled to add up to 1.  step: of the
    weights.  host: whose advantages and loss it is; the KL of GRPO is the one released.  group_size: answers to a
    prompt.
    """
    chosen = rloo() if host == "rloo" else grpo(kl_coefficient=0.001)
    return chosen.replace(
        name="gradient_reward_weighting",
        base=host,
        sampler=grpo(group_size=group_size).sampler,
        rewards=() if weights is None else (RewardWeights(weights),),
        schedules=(
            GradientInfluence(step, advantage=chosen.advantage, objective=chosen.objective.replace(regularizer=None)),
        ),
    )
