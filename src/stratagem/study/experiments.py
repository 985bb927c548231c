"""What claims are measured with: runs in the lab that keep the exact policy of every batch, and figures of updates."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stratagem.lab import Diagnosis, Exact, TabularPolicy, diagnose, find_game
from stratagem.lab.exact import optimal_values
from stratagem.lab.world import LabTask, LabWorld
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
    """One run in the lab: the exact policy before learning and after every batch, and the trainer's metrics."""

    policies: list[Exact]
    metrics: list[dict[str, float]]

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
    start: Exact | None = None,
    learning_rate: float | None = None,
) -> Run:
    """Train with the trainer itself, from a random table or from ``start``, at the lab's learning rate or another."""
    world = LabWorld(task, seed, None if start is None else TabularPolicy(start.logits))
    recipe = world.adapt(recipe)
    if learning_rate is not None:
        recipe = recipe.with_values({"optimization.learning_rate": learning_rate})
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(batches, seed, evaluation_episodes=0, sample_episodes=0)
        trainer = Trainer(recipe, world, RunDirectory.create(folder), settings)
        policies, metrics = [_exact(world)], []
        for _ in range(batches):
            metrics.append(trainer.step())
            policies.append(_exact(world))
    return Run(policies, metrics)


def learn_all(
    recipe: Recipe, games: Sequence[str], seed: int, batches: int, staleness: int = 0, tables: int = 1
) -> Runs:
    """Train ``tables`` fresh tables in each game."""
    tasks = [LabTask(find_game(game), staleness=staleness) for game in games]
    return Runs([learn(recipe, task, derive(seed, "table", n), batches) for task in tasks for n in range(tables)])


def _exact(world: LabWorld) -> Exact:
    return Exact(world.tree, world.policy.logits.detach().clone())


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
