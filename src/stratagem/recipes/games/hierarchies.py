"""Two levels of agents: who chooses subgoals learns by mixed values, who reaches them by any policy gradient."""

from __future__ import annotations

from stratagem.catalogue import paper
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.recipes.games.values import qmix

__all__ = ["gmah"]


@paper(
    "2408.11416",
    title="Subgoal-based Hierarchical Reinforcement Learning for Multi-Agent Collaboration",
    family="games",
    roles=("policy", "reward", "objective"),
    year=2024,
    base="qmix",
)
def gmah(
    discount: float = 0.99,
    episodes: int = 8,
    replayed: int = 32,
    capacity: int = 5000,
    target_every: int = 200,
    epsilon: float = 0.05,
    anneal: int = 50,
    double: bool = True,
    learning_rate: float = 1e-3,
) -> Recipe:
    """Values of subgoals, mixed monotonically with weights from state and joint subgoals, learned per decision.

    ``y = sum_k discount^k r_k + discount^tau Q'_tot`` over the ``tau`` steps between decisions. It is QMIX on the task
    ``leaders:TASK,followers=FOLDER``, in which an action is a subgoal and a turn a decision
    (:class:`~stratagem.multiagent.Leaders`); FOLDER holds agents that were trained to reach subgoals by a policy
    gradient, ``stratagem train ippo --task followers:TASK`` (:class:`~stratagem.multiagent.Followers`). The mixer's 32
    hidden numbers are those of QMIX and the learning rate is that of the paper's upper level. Of the paper's own mixer
    no formula was available and the file of its released code is empty: what it reads is a reconstruction, and so is
    adaptive re-selection (``adaptive=true`` of the task).
    """
    flat = qmix(discount, episodes, replayed, capacity, target_every, epsilon, anneal, double, recurrence="none")
    steps = AdamW(learning_rate=learning_rate, max_grad_norm=10.0, minibatches=episodes, shuffle="groups")
    return flat.replace(name="gmah", base="qmix", optimization=steps)
