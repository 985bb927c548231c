"""Policy gradients for agents that find their ways beside each other: on a grid, and as discs on a plane."""

from __future__ import annotations

from typing import Literal

from stratagem.architectures import Agents
from stratagem.catalogue import paper
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.recipes.games.cooperative import ippo
from stratagem.sampling import Segments

__all__ = ["follower", "online_cbf"]


@paper(
    "2310.01207",
    title="Learn to Follow: Decentralized Lifelong Multi-agent Pathfinding via Planning and Learning",
    family="games",
    roles=("policy", "reward", "planner"),
    year=2023,
    base="ippo",
)
def follower(
    width: int = 16,
    hidden: int = 64,
    discount: float = 0.9756,
    trace: float = 0.95,
    clip: float = 0.2,
    value_weight: float = 0.5,
    entropy_weight: float = 0.023,
    learning_rate: float = 2.2e-4,
    copies: int = 128,
    turns: int = 8,
    epochs: int = 1,
    recurrence: Literal["none", "gru"] = "none",
) -> Recipe:
    """Independent PPO with one small convolutional policy for any number of agents, paid for following its own plan.

    For the task ``pathfinding`` (or ``pogema``), in which every agent plans a path by costs that rise where others are
    seen, and earns 0.01 for being where its last plan wanted it. Numbers are those of the released model: rollouts of
    8 turns, which with 16 agents in 128 copies make its batches of 16,384. Its network has residual blocks and a
    memory (a GRU of 256); this one has two convolutions of ``width`` channels and, with ``recurrence = "gru"``, a GRU
    of ``hidden``, without which it sees the present window alone. What is remembered goes on from batch to batch.
    """
    alone = ippo("shared", clip, discount, trace, value_weight, None, entropy_weight, epochs, 1, recurrence)
    return alone.replace(
        name="follower",
        base="ippo",
        sampler=Segments(prompts_per_step=copies, turns=turns),
        architecture=Agents(hidden=hidden, told=False, front="convolution", width=width, recurrence=recurrence),
        optimization=alone.optimization.replace(learning_rate=learning_rate),
    )


@paper(
    "2303.04313",
    title="Online Control Barrier Functions for Decentralized Multi-Agent Navigation",
    family="games",
    roles=("policy", "reward"),
    year=2023,
    base="ippo",
)
def online_cbf(
    width: int = 32,
    hidden: int = 32,
    discount: float = 0.99,
    trace: float = 0.95,
    clip: float = 0.2,
    value_weight: float = 0.5,
    entropy_weight: float = 0.0,
    learning_rate: float = 1e-3,
    copies: int = 16,
    turns: int = 32,
    epochs: int = 4,
    minibatches: int = 4,
) -> Recipe:
    """PPO of one message-passing policy that sets the barrier parameters of every agent, turn by turn.

    For the task ``discs``, whose action is ``zeta`` and ``eta`` of an agent's own barriers before they are squashed to
    their ranges; the nearest safe velocity itself is not learned. Messages are one sum over neighbours in reach
    (:class:`~stratagem.multiagent.fronts.Messages`), so what an agent does depends on those alone, in no order, and not
    on where on the plane it happens. The paper's own settings were not available: all numbers here are ours.
    """
    alone = ippo("shared", clip, discount, trace, value_weight, None, entropy_weight, epochs, minibatches)
    return alone.replace(
        name="online_cbf",
        base="ippo",
        sampler=Segments(prompts_per_step=copies, turns=turns),
        architecture=Agents(hidden=hidden, told=False, front="messages", width=width),
        optimization=AdamW(
            learning_rate=learning_rate,
            max_grad_norm=0.5,
            epochs=epochs,
            minibatches=minibatches,
            shuffle="turns",
            eps=1e-5,
        ),
    )
