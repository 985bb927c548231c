"""The claims of losses of another shape than a clipped surrogate."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from torch import Tensor

from stratagem.claims.baselines import FOUR_UPDATES, IN_THE_LAB, RIGHT_OR_WRONG
from stratagem.experience import Experience, PolicyOutput
from stratagem.lab import Exact, find_game
from stratagem.lab.draw import draw
from stratagem.lab.tree import Tree
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.recipes.objectives import losses
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import (
    Runs,
    entropy,
    entropy_gain_at_equal_return,
    expected_return,
    learn_all,
)


@claim(
    "nft",
    statement="On policy the update of negative-aware fine-tuning is that of GRPO; off policy it learns at least as much "
    "as GRPO and DAPO, and far more than fine-tuning on right answers alone, whose entropy it does not lose.",
    source="arXiv 2505.18116, the section on the gradient, and the comparisons at 7 and 32 billion parameters",
    baseline="dr_grpo for the gradient; dapo and rejection_sft for learning",
    rule=(
        Expect("gradient_difference", below=1e-5),
        Expect("mean_return_gain_over_dapo", above=-0.02),
        Expect("mean_return_gain_over_rejection", above=0),
        Expect("entropy_gain_over_rejection", above=0),
    ),
    scale=IN_THE_LAB + "At least as much means no more than two points less, mean over 60 batches of four updates. The "
    "entropies are means over the same batches, so who learns faster is surer; entropy_gain_equal_return is where both "
    "first earn nine tenths of what they end with.",
)
def nft(seed: int) -> dict[str, float]:
    """Largest relative difference of the gradients on policy; returns and entropies over 60 batches of 4 updates."""
    arms = losses.nft(), baselines.dapo(), baselines.rejection_sft()
    ours, dapo, rejection = [learn_all(arm.with_values(FOUR_UPDATES), RIGHT_OR_WRONG, seed, 60) for arm in arms]
    return {
        "gradient_difference": max(_gradient_difference(game, seed) for game in RIGHT_OR_WRONG),
        "mean_return_gain_over_dapo": ours.mean(expected_return) - dapo.mean(expected_return),
        "mean_return_gain_over_rejection": ours.mean(expected_return) - rejection.mean(expected_return),
        "entropy_gain_over_rejection": ours.mean(entropy) - rejection.mean(entropy),
        "entropy_gain_equal_return": entropy_gain_at_equal_return(ours, rejection),
        "mean_return": ours.mean(expected_return),
    }


@claim(
    "rover",
    statement="Regressing on the values of the random policy reaches more than GRPO (48.4 instead of 39.7 points of "
    "pass@1, 8 billion parameters) and keeps more different right answers.",
    source="arXiv 2509.24981, main table and the analysis of diversity",
    baseline="grpo",
    rule=(Expect("mean_return_gain", above=0), Expect("diversity_gain", above=0)),
    scale=IN_THE_LAB + "Diversity is the entropy, in nats, of the right answers the last policy gives. "
    "mean_return_gain_without_next_value and diversity_gain_without_next_value are of the same regression without the "
    "value of the next state, which is REINFORCE with a pull to the old policy: what they reach, the random policy's "
    "values do not add.",
)
def rover(seed: int) -> dict[str, float]:
    """Mean return over 60 batches of 4 updates and diversity at their end, in four games with several right answers."""
    arms = losses.rover(), baselines.grpo(), losses.rover(next_value=0.0)
    ours, theirs, plain = [learn_all(arm.with_values(FOUR_UPDATES), RIGHT_OR_WRONG, seed, 60) for arm in arms]
    return {
        "mean_return_gain": ours.mean(expected_return) - theirs.mean(expected_return),
        "diversity_gain": _diversity(ours) - _diversity(theirs),
        "mean_return_gain_without_next_value": plain.mean(expected_return) - theirs.mean(expected_return),
        "diversity_gain_without_next_value": _diversity(plain) - _diversity(theirs),
        "final_return_gain": ours.final_return - theirs.final_return,
    }


def _gradient_difference(game: str, seed: int) -> float:
    """``|g_nft - g_dr_grpo| / |g_dr_grpo|`` by the log-probabilities of one batch of 64 answers, on policy."""
    tree = Tree.enumerate(find_game(game))
    policy = Exact(tree, tree.normal_logits(seed))
    logp = tree.chosen(policy.logp).float()
    x = draw(tree.leaves.replace(behavior_logp=logp), policy.leaf_probability, 8, 8, generator(seed, "gradients"))
    ours, theirs = (_gradient(recipe, x) for recipe in (losses.nft(), baselines.dr_grpo()))
    return float((ours - theirs).norm() / theirs.norm())


def _gradient(recipe: Recipe, x: Experience) -> Tensor:
    ready = recipe.prepare(x)
    assert ready.behavior_logp is not None
    logp = ready.behavior_logp.clone().requires_grad_()
    return torch.autograd.grad(recipe.objective(PolicyOutput(logp), ready).loss, logp)[0]


def _diversity(runs: Runs) -> float:
    """Entropy of the right answers of the last policies, mean over games."""
    return fmean(_right_entropy(run.last) for run in runs.runs)


def _right_entropy(policy: Exact) -> float:
    right = policy.leaf_probability[policy.tree.leaves.returns > 0]
    share = right / right.sum()
    value = float(torch.special.entr(share).sum())
    return value if math.isfinite(value) else 0.0
