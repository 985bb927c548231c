"""Agents that orchestrate: a small policy that decides which expert to ask, and when it has heard enough."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import Clip, PolicyGradient, SequenceMean
from stratagem.parts import Reward
from stratagem.recipe import Recipe
from stratagem.rewards import CostPenalty, FormatPenalty
from stratagem.sampling import Rollouts

__all__ = ["maestro"]


@paper(
    "2605.22177",
    title="Maestro: Reinforcement Learning to Orchestrate Hierarchical Model-Skill Ensembles",
    family="agents",
    roles=("reward",),
    year=2026,
    base="grpo",
)
def maestro(format_penalty: float = 1.0, cost_weight: float = 0.0, group_size: int = 8) -> Recipe:
    """GRPO for a policy that asks frozen experts: ``R = R_task + R_format``, ``R_format`` being 0 or -1.

    Nothing is paid for single steps. Which (model, skill) pairs there are is text that the policy reads, so further
    ones can be added to a registry without training; ``experts`` is a task of this kind. What experts say has no rows
    in a batch, so nothing is to be masked. No KL and no entropy bonus, as in the released code; how it adds up tokens
    was not looked up, and the mean over trajectories of token means is GRPO's.

    ``format_penalty``: what a wrong format costs; whether an answer without a call is one is the task's affair.
    ``cost_weight``: above 0, ``R`` is also less by ``cost_weight`` times the task's ``cost``. The paper only accounts
    for costs; this term is a reconstruction of what charging for them would be.

    Raises :class:`InputError` for a penalty or weight below 0, and in training for a weight on a task without costs.
    """
    rewards: tuple[Reward, ...] = (FormatPenalty(format_penalty),)
    if cost_weight:
        rewards = (*rewards, CostPenalty(cost_weight))
    return Recipe(
        name="maestro",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        rewards=rewards,
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=Clip(), aggregation=SequenceMean()),
    )
