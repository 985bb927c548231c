"""Agents that search documents: pages, then regions of them, then an answer."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["unidoc_rl"]


@paper(
    "2604.14967",
    title="UniDoc-RL: Coarse-to-Fine Visual RAG with Hierarchical Actions and Dense Rewards",
    family="agents",
    roles=("reward",),
    year=2026,
    base="grpo",
    tags=("limits.question.multimodality",),
)
def unidoc_rl(kl_coefficient: float = 0.01, group_size: int = 5) -> Recipe:
    """GRPO for a policy that searches pages, selects one, crops a region and answers, and is paid for each of these:
    ``R = 0.6 answer + 0.1 (retrieval + selection + region + format)``, all of it 0 in a wrong format.

    The five rewards are columns of the task, since they compare texts and boxes: ``documents`` notes them so, gated by
    the format, with these weights in the return; :class:`~stratagem.rewards.RewardWeights` gives others, and
    ``documents:reward=answer`` pays the answer alone. On a task with one reward this is GRPO with KL. What the
    environment says has no rows in a batch, so nothing is to be masked.

    Weights, groups of 5 and the k3 KL at 0.01 are those of the released code. The code trains at a learning rate of
    1e-6 with a warm-up over 28.5 % of all steps, after demonstrations; none of that is part of the recipe. How it adds
    up tokens was not looked up: the mean over trajectories of token means is GRPO's.
    """
    return Recipe(
        name="unidoc_rl",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            gate=Clip(),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
