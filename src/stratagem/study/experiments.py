"""What claims are measured with: runs in the lab that keep the exact policy of every batch, and figures of updates."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Diagnosis, Exact, TabularPolicy, diagnose, find_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.policy import NodeInputs, NodePolicy
from stratagem.lab.world import LabTask, LabWorld
from stratagem.objectives import PolicyGradient
from stratagem.recipe import Recipe
from stratagem.seeding import derive
from stratagem.study.statistics import first_reach
from stratagem.training.loop import Settings, Trainer
from stratagem.training.run_directory import RunDirectory

TABLES = 8
"""Policies a seed stands for where one game decides, and where noise is measured: both differ much between them."""


# ---- learning in the lab --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """One run in the lab: the exact policy before learning and after every batch, and the trainer's metrics.

    largest_ratios: of every batch, the largest ``pi / mu`` of a token it sampled, with ``pi`` as it was after learning
    from it; infinite where that is no number, 1 for an empty batch.
    """

    policies: list[Exact]
    metrics: list[dict[str, float]]
    largest_ratios: list[float] = field(default_factory=list)

    @property
    def last(self) -> Exact:
        """What it ended with."""
        return self.policies[-1]

    def mean(self, figure: Callable[[Exact], float]) -> float:
        """A figure of the policy, averaged over the run."""
        return fmean(map(figure, self.policies))

    def mean_metric(self, name: str) -> float:
        """A metric averaged over the batches that taught something."""
        return fmean(row[name] for row in self.metrics if name in row)


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one recipe in several games; their means count every game the same."""

    runs: list[Run]

    def mean(self, figure: Callable[[Exact], float]) -> float:
        """A figure of the policy, averaged over runs."""
        return fmean(run.mean(figure) for run in self.runs)

    def mean_metric(self, name: str) -> float:
        """A metric, averaged over runs."""
        return fmean(run.mean_metric(name) for run in self.runs)

    @property
    def final_return(self) -> float:
        """What the policies earn in the end."""
        return fmean(run.last.expected_return for run in self.runs)


def learn(
    recipe: Recipe,
    task: LabTask,
    seed: int,
    batches: int,
    start: Exact | NodePolicy | None = None,
    learning_rate: float | None = None,
) -> Run:
    """Train with the trainer itself, from a random table or from ``start``, at the lab's learning rate or another."""
    world = LabWorld(task, seed, TabularPolicy(start.logits) if isinstance(start, Exact) else start)
    recipe = world.adapt(recipe)
    if learning_rate is not None:
        recipe = recipe.with_values({"optimization.learning_rate": learning_rate})
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(batches, seed, evaluation_episodes=0, sample_episodes=0)
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        policies, metrics, ratios = [_exact(world)], [], []
        for _ in range(batches):
            metrics.append(trainer.step())
            policies.append(_exact(world))
            ratios.append(_largest_ratio(world.last_batch, policies[-1]))
    return Run(policies, metrics, ratios)


def learn_all(
    recipe: Recipe,
    games: Sequence[str],
    seed: int,
    batches: int,
    staleness: int = 0,
    tables: int = 1,
    learning_rate: float | None = None,
    **options: Any,
) -> Runs:
    """Train ``tables`` fresh policies in each game; further ``options`` are those of :class:`LabTask`."""
    tasks = [LabTask(find_game(game), staleness=staleness, **options) for game in games]
    seeds = [derive(seed, "table", n) for n in range(tables)]
    return Runs([learn(recipe, task, n, batches, learning_rate=learning_rate) for task in tasks for n in seeds])


def _largest_ratio(x: Experience | None, policy: Exact) -> float:
    if x is None or x.tokens == 0 or x.behavior_logp is None:
        return 1.0
    assert isinstance(x.inputs, NodeInputs) and x.action is not None
    ratio = float((policy.logp[x.inputs.node, x.action] - x.behavior_logp).max().exp())
    return math.inf if math.isnan(ratio) else ratio


def _exact(world: LabWorld) -> Exact:
    return Exact(world.tree, world.policy.table())


# ---- figures of policies and runs -----------------------------------------------------------------------------------


def expected_return(policy: Exact) -> float:
    """``J``."""
    return policy.expected_return


def entropy(policy: Exact) -> float:
    """Mean token entropy, in nats."""
    return policy.entropy


def wrong_length(policy: Exact) -> float:
    """Expected tokens of an answer, given that it is wrong."""
    x = policy.tree.leaves
    assert x.success is not None
    wrong = (~x.success).double()
    return policy.expected(wrong * x.trajectory_of_token.size()) / policy.expected(wrong)


def best_return(policy: Exact) -> float:
    """The best return its game allows."""
    return Exact.greedy(policy.tree, optimal_values(policy.tree)).expected_return


def score(run: Run) -> float:
    """Final return, from 0 where the run began to 1 at the best possible."""
    first = run.policies[0].expected_return
    return (run.last.expected_return - first) / (best_return(run.last) - first)


def batches_until(run: Run, level: float) -> float:
    """Batches until the return is first at ``level``; all of them when it never is."""
    returns = np.array([policy.expected_return for policy in run.policies])
    return min(first_reach(np.arange(len(returns), dtype=float), returns, level), len(returns) - 1.0)


def entropy_gain_at_equal_return(ours: Runs, theirs: Runs) -> float:
    """Difference of the entropies where each first earns nine tenths of what both earn in the end; mean over runs."""
    return fmean(_entropy_gain(*pair) for pair in zip(ours.runs, theirs.runs, strict=True))


def _entropy_gain(ours: Run, theirs: Run) -> float:
    level = 0.9 * min(ours.last.expected_return, theirs.last.expected_return)
    first = [next(policy for policy in run.policies if policy.expected_return >= level) for run in (ours, theirs)]
    return first[0].entropy - first[1].entropy


# ---- figures of updates ---------------------------------------------------------------------------------------------


def expected_update(objective: PolicyGradient, policy: Exact, behavior: Exact) -> Float64[Tensor, "nodes vocabulary"]:
    """Minus the gradient of a loss by the policy's logits, expected over what ``behavior`` does, in float64.

    Every trajectory there is counts by its probability there, with its return for an advantage, ``old_logp`` and
    ``behavior_logp`` are of ``behavior``, and the objective's weights are scaled to at most 1.
    """
    tree, x = policy.tree, policy.tree.leaves
    chosen = tree.chosen(behavior.logp)
    worth = behavior.leaf_probability * x.returns.double() / objective.aggregation.weights(x).max().double()
    x = x.replace(behavior_logp=chosen, old_logp=chosen, advantage=x.to_tokens(trajectory=worth))
    logits = policy.logits.double().clone().requires_grad_()
    objective(PolicyOutput(tree.chosen(torch.log_softmax(logits, -1))), x).loss.backward()
    assert logits.grad is not None
    return -logits.grad


def sine(recipe: Recipe, games: Sequence[str], seed: int) -> float:
    """Sine of the angle between expected update and exact gradient, mean over games."""
    found = [diagnose(recipe, game, seed=seed).direction for game in games]
    return fmean(1.0 if direction is None else direction.value for direction in found)


def noise_ratio(
    arms: Sequence[Recipe], games: Sequence[str], seed: int, drift: float = 0.0, tables: int = TABLES
) -> float:
    """Noise of the first recipe's update over the second's, ``tr Cov(u) / |E u|^2``, mean over games and tables."""
    found = [
        [_noise(diagnose(arm, game, groups=16_384, drift=drift, seed=derive(seed, "table", n))) for arm in arms]
        for game in games
        for n in range(tables)
    ]
    return fmean(ours / theirs for ours, theirs in found)


def _noise(diagnosis: Diagnosis) -> float:
    assert diagnosis.noise is not None, f"{diagnosis.recipe} does not move in {diagnosis.game}"
    return diagnosis.noise.value
