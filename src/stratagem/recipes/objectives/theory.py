"""Recipes that a theory of the reward suggests."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized, PerReward
from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.rewards import RewardWeights

__all__ = ["ta_mdp"]


@paper(
    "2604.19857",
    title="Rethinking Reinforcement Fine-Tuning in LVLM: Convergence, Reward Decomposition, and Generalization",
    family="objectives",
    roles=("advantage",),
    year=2026,
    base="grpo",
)
def ta_mdp(weights: tuple[float, ...] | None = None, group_size: int = 8) -> Recipe:
    """GRPO with advantages per reward component, ``A_i = sum_k w_k (R_ik - mean_g R_k) / (std_g R_k + eps)``.

    The paper is a theory of GRPO with composite rewards (format, accuracy, executability of tool calls) in processes
    with tool calls of bounded depth. Its theorems and formulas were not available, only its abstract: this recipe, the
    process (:class:`stratagem.lab.ToolRules`), the conflict of components (:class:`stratagem.lab.Conflict`) and the
    generalisation bound (:class:`stratagem.lab.PACBayesBound`) are reconstructions.

    Without division by the standard deviation (``--set advantage.of=group_centered``) the parts add up to GRPO's joint
    advantage of the same kind, and nothing is gained or lost; so what this recipe changes is how much each component
    counts. With a single reward of weight 1 it is GRPO.

    weights: of the reward's components, in the task's order; None: the task's own.  group_size: answers to a prompt.
    """
    return grpo(group_size=group_size).replace(
        name="ta_mdp",
        base="grpo",
        rewards=() if weights is None else (RewardWeights(weights),),
        advantage=PerReward(GroupStandardized()),
    )
