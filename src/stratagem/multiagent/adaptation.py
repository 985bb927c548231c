"""Adapting agents with latent codes to a game they have not seen: the best code by trial, then a few gradient steps."""

from __future__ import annotations

import tempfile

import torch
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent.game import MultiAgentTask
from stratagem.multiagent.relational import RelationalAgents
from stratagem.multiagent.world import MultiAgentWorld
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory


def code_returns(policy: RelationalAgents, task: MultiAgentTask, episodes: int, seed: int) -> Float[Tensor, " codes"]:
    """Mean return of agents that all have the same code, for each code, from the same training episodes.

    Raises :class:`InputError` for a policy that does not fit the task, :class:`BrokenRunError` when no episode does.
    """
    found = []
    for code in range(policy.codes):
        trial = policy.copy()
        trial.choose(code)
        collected = MultiAgentWorld(task, seed, trial).collect(Rollouts(episodes, 1), 0)
        if collected.x is None:
            raise BrokenRunError(f"task {task.name}: no episode could be played")
        found.append(float(collected.x.returns.mean()))
    return torch.tensor(found)


def adapted(
    policy: RelationalAgents, task: MultiAgentTask, recipe: Recipe, steps: int, seed: int, episodes: int = 16
) -> RelationalAgents:
    """A copy for another game: all agents have the code that does best, and ``steps`` optimizer steps were taken.

    Codes are tried on ``episodes`` episodes each (:func:`code_returns`). The steps are those of the recipe, all on one
    batch of as many episodes; first-order, nothing is differentiated through them. 0: the code alone.

    Raises :class:`InputError` for a policy that does not fit the task or the recipe.
    """
    if steps < 0 or episodes < 1:
        raise InputError(f"steps = {steps}, episodes = {episodes}: must be at least 0 and 1")
    ours = policy.copy().requires_grad_(True)
    ours.target.requires_grad_(False)
    ours.choose(int(code_returns(policy, task, episodes, seed).argmax()))
    if steps == 0:
        return ours
    world = MultiAgentWorld(task, seed, ours)
    whole = {
        "sampler.prompts_per_step": episodes,
        "optimization.epochs": steps,
        "optimization.minibatches": 1,
        "replay": None,
    }
    settings = Settings(steps=1, seed=seed, evaluation_episodes=0, checkpoint_every=2)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(recipe.with_values(whole), world, RunDirectory.create(folder), settings).step()
    return ours
