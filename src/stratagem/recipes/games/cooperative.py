"""Policy gradients for agents that act at once: each for itself, or with a critic that sees more than they do."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GAE, BatchWhitened, NormalizedValues
from stratagem.architectures import Agents
from stratagem.catalogue import paper
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import ppo
from stratagem.sampling import Rollouts

__all__ = ["ippo", "mappo"]

EPISODES = 32
"""Whole episodes in a batch."""


@paper(
    "2011.09533",
    title="Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?",
    family="games",
    roles=("policy", "critic"),
    year=2020,
    base="ppo",
)
def ippo(
    weights: Literal["shared", "separate"] = "shared",
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    value_weight: float = 1.0,
    value_clip: float | None = 0.2,
    entropy_weight: float = 0.01,
    epochs: int = 10,
    minibatches: int = 1,
    recurrence: Literal["none", "gru"] = "none",
) -> Recipe:
    """Independent PPO: every agent learns by PPO from what it sees and earns, as if the others were its environment.

    With one agent it is PPO. ``weights``: one actor and one critic for all agents, who are told which of them they are,
    or one of each for every agent. The numbers are those arXiv 2103.01955 gives for MAPPO and IPPO alike.
    ``recurrence``: agents see the present alone, or with ``gru`` remember the episode; mini-batches are then of whole
    trajectories in place of single turns.
    """
    alone = ppo(clip, discount, trace, value_weight, value_clip, entropy_weight, epochs, minibatches)
    return alone.replace(
        name="ippo",
        base="ppo",
        sampler=Rollouts(EPISODES, 1),
        architecture=Agents(weights, recurrence=recurrence),
        optimization=AdamW(
            learning_rate=7e-4,
            max_grad_norm=10.0,
            epochs=epochs,
            minibatches=minibatches,
            shuffle="turns" if recurrence == "none" else "trajectories",
            eps=1e-5,
        ),
    )


@paper(
    "2103.01955",
    title="The Surprising Effectiveness of PPO in Cooperative, Multi-Agent Games",
    family="games",
    roles=("policy", "critic", "advantage"),
    year=2021,
    base="ippo",
)
def mappo(
    weights: Literal["shared", "separate"] = "shared",
    critic: Literal["state", "both"] = "both",
    normalize_values: bool = True,
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    value_weight: float = 1.0,
    value_clip: float | None = 0.2,
    entropy_weight: float = 0.01,
    epochs: int = 10,
    minibatches: int = 1,
    recurrence: Literal["none", "gru"] = "none",
) -> Recipe:
    """Multi-agent PPO: IPPO whose critic sees the state of the game and learns values on the scale of its targets.

    ``critic``: ``both`` is the paper's agent-specific state, the state beside what the agent sees; ``state`` is that
    alone. Numbers are the paper's for particle environments: ten epochs on whole batches, a learning rate of 7e-4,
    gradients of at most 10. Agents whose episode is over are masked out of the policy's loss, and the critic reads
    zeros for what they see ("death masking"). Actor and critic are clipped by one norm here, by one each there, and the
    value loss is squared where theirs turns linear beyond 10 deviations.

    ``recurrence``: ``none`` as there, or ``gru``, the paper's recurrent MAPPO: an actor and a critic that see agents'
    own views remember the episode. Sequences are whole trajectories from what was remembered when they began, where
    the paper's are chunks of ten turns.
    """
    ppo_of = (clip, discount, trace, value_weight, value_clip, entropy_weight, epochs, minibatches)
    alone = ippo(weights, *ppo_of, recurrence)
    of = GAE(discount, trace)
    return alone.replace(
        name="mappo",
        base="ippo",
        architecture=Agents(weights, critic, recurrence=recurrence),
        advantage=BatchWhitened(NormalizedValues(of) if normalize_values else of),
    )
