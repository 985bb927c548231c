"""Open-ended learning: tasks that are just right for the agent as it is."""

from __future__ import annotations

from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import ppo
from stratagem.sampling import ProbedTasks, Rollouts

__all__ = ["xland"]


@paper(
    "2107.12808",
    title="Open-Ended Learning Leads to Generally Capable Agents",
    family="games",
    roles=("curriculum", "environment", "schedule", "metric", "policy"),
    year=2021,
    base="ppo",
)
def xland(proposals: int = 8, episodes: int = 10, entropy_weight: float = 0.01) -> Recipe:
    """Rolls out tasks that passed three tests: not too easy, better than a control policy, which does badly itself.

    Before a batch ``proposals`` random tasks are tried ``episodes`` times by the agent and by the control policy
    (:class:`~stratagem.sampling.ProbedTasks`); the steps count. Thresholds are knobs that a population may evolve
    (:class:`stratagem.openended.Population`, ``stratagem evolve``). Where a task has several players, all trials are
    against the task's own co-players (:class:`stratagem.openended.CoPlayers`). The policy is optimised by PPO here, by
    V-MPO in the paper; thresholds and all numbers are ours.
    """
    base = ppo(entropy_weight=entropy_weight)
    return base.replace(
        name="xland", base="ppo", sampler=Rollouts(curriculum=ProbedTasks(proposals=proposals, episodes=episodes))
    )
