"""Policies of teams whose agents' actions depend on one another while they learn."""

from __future__ import annotations

from typing import Literal

from stratagem.architectures import DependentActors
from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.games.cooperative import EPISODES, mappo
from stratagem.sampling import DependentRollouts
from stratagem.schedules import LinearRamp

__all__ = ["bn_policy"]


@paper(
    "2306.01920",
    title="Context-Aware Bayesian Network Actor-Critic Methods for Cooperative Multi-Agent Reinforcement Learning",
    family="games",
    roles=("policy", "sampler", "schedule"),
    year=2023,
    base="mappo",
)
def bn_policy(
    edges: Literal["learned", "full", "line", "none"] = "learned",
    anneal: int = 70,
    weights: Literal["shared", "separate"] = "shared",
    critic: Literal["state", "both"] = "both",
) -> Recipe:
    """MAPPO whose agents see sampled actions of others along a graph, ``pi(a|o) = prod_j pi_j(a_j | o_j, a_parents)``.

    The graph is drawn anew in every turn from what all agents see, by nets that learn with the actors, or fixed. Each
    edge is kept with a probability that falls from 1 to 0 over ``anneal`` batches, so that agents end up acting alone,
    as they do whenever they are evaluated. The schedule is a reconstruction: the paper says that sparsity changes until
    policies are independent, and the released code has fixed probabilities only. ``anneal = 0`` keeps all edges.
    ``weights`` and ``critic`` are those of :func:`mappo`. With ``edges = "none"`` it is MAPPO.
    """
    plain = mappo(weights, critic)
    ramp = (LinearRamp("sampler.dependence", 1.0, 0.0, anneal),) if anneal else ()
    return plain.replace(
        name="bn_policy",
        base="mappo",
        sampler=DependentRollouts(EPISODES, 1),
        architecture=DependentActors(weights, critic, edges=edges),
        optimization=plain.optimization.replace(shuffle="groups"),
        schedules=ramp,
    )
