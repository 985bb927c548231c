"""The claims of credit at more than one level, decided in games whose turns have several tokens or parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from stratagem.advantages import GAE, BatchWhitened, HierarchicalGAE
from stratagem.lab import Exact, Tree, find_game
from stratagem.objectives.ratios import ProductRatio
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.recipes.agents import hierarchy
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import TABLES, expected_return, learn_all

NAIVE = {"advantage.of.step": "token"}
"""Every token a step: the paper's control, naive token policy optimization."""

WHOLE_ACTIONS = {"advantage.of.step": "turn", "objective.ratio": ProductRatio("turn")}
"""A turn as one action: one value, one ratio."""

LAB = "Tabular policies in an enumerated game, judged exactly. "


@claim(
    "poad",
    statement="Discounting between actions only, a token-level critic learns faster than action-level PPO and than "
    "naively flattened tokens (Overcooked, VirtualHome, data science coding); and flattening has another optimum, "
    "unless the discount is 1.",
    source="arXiv 2405.15821, abstract, the section on the discrepancy of naive flattening and the learning curves",
    baseline="action-level PPO; every token a step, with the same discount",
    rule=(
        Expect("long_word", above=0.5),
        Expect("naive_long_word", below=0.5),
        Expect("gain_over_actions", above=0),
        Expect("gain_over_naive", above=0),
    ),
    scale=LAB
    + "Two games: one word of one or two tokens, of which the longer pays 5 % more (discount 0.9); and a corridor of "
    "five turns and four words of one to three tokens, paid at its end (discount 0.95). gain_over_naive_undiscounted "
    "is over naive flattening with a discount of 1, which cures the wrong optimum and on development seeds learned as "
    "fast. Nothing generalises in a table, so nothing is said of unseen tasks.",
)
def poad(seed: int) -> dict[str, float]:
    """Probability of the longer word after 60 batches; mean return over 30 batches in the corridor."""
    ours = hierarchy.poad()

    def long_word(arm: Recipe) -> float:
        arm = arm.with_values({"advantage.of.discount": 0.9, "objective.regularizer": None})
        return learn_all(arm, ["one_word"], seed, 60).runs[0].last.success

    naive = ours.with_values(NAIVE)
    arms = ours, ours.with_values(WHOLE_ACTIONS), naive, naive.with_values({"advantage.of.discount": 1.0})
    mean, actions, flattened, undiscounted = [
        learn_all(arm, ["wordy_corridor"], seed, 30, tables=2).mean(expected_return) for arm in arms
    ]
    return {
        "long_word": long_word(ours),
        "naive_long_word": long_word(naive),
        "gain_over_actions": mean - actions,
        "gain_over_naive": mean - flattened,
        "gain_over_naive_undiscounted": mean - undiscounted,
        "mean_return": mean,
    }


@claim(
    "hiper",
    statement="Hierarchical advantages give an unbiased gradient of less variance than flat generalized advantage "
    "estimation, and an agent that plans and executes learns more with them (ALFWorld 97.4 %, WebShop 83.3 % with a "
    "7B model, 6.6 and 8.3 points over the best method before).",
    source="arXiv 2602.16165, abstract",
    baseline="the same recipe with flat GAE over tokens, lambda 0.95",
    rule=(
        Expect("relative_bias", below=0.001),
        Expect("variance_ratio", below=1),
        Expect("mean_return_gain", above=0),
    ),
    scale=LAB
    + "Three errands that depend on each other in five turns of switch, sub-goal and action; no discount, and no "
    "charges or KL in any arm. Bias and variance are of one trajectory's update with an exact critic: "
    "variance_ratio_turns is over flat GAE whose steps are turns, variance_ratio_short_trace over flat GAE over tokens "
    "with lambda 0, and bias_without_critic is what is left of the hierarchical update when the critic says 0. "
    "gain_at_double_rate is over flat GAE at twice the learning rate, gain_of_switch_credit over the same without "
    "credit for switching. With an exact critic any shorter trace is less noisy, which explains the "
    "first two ratios; with a learned one flat GAE earned a little more on development seeds, however the advantages "
    "were whitened. A sub-goal conditions nothing that a table could share.",
)
def hiper(seed: int) -> dict[str, float]:
    """Exact bias and variance for 8 tables; mean return over 30 batches."""
    ours = hierarchy.hiper(keep=0, inconsistent=0, invalid=0, kl_coefficient=0)
    flat = ours.with_values({"advantage": BatchWhitened(GAE())})
    unswitched = ours.with_values({"advantage.streams": ("subgoal", "action")})
    run = partial(learn_all, games=["errands"], seed=seed, batches=30, tables=2)
    mean, flatly, faster, without = [
        run(arm, learning_rate=rate).mean(expected_return)
        for arm, rate in ((ours, 0.05), (flat, 0.05), (flat, 0.1), (unswitched, 0.05))
    ]
    estimates = HierarchicalGAE(), GAE(), GAE(step="turn"), GAE(trace=0.0)
    tree = Tree.enumerate(find_game("errands"))
    policies = [Exact(tree, tree.normal_logits(derive(seed, "table", n))) for n in range(TABLES)]
    ratios = [_variance_ratios(policy, estimates) for policy in policies]
    return {
        "relative_bias": max(_update(policy, estimates[0])[0] for policy in policies),
        "variance_ratio": fmean(ratio[0] for ratio in ratios),
        "variance_ratio_turns": fmean(ratio[1] for ratio in ratios),
        "variance_ratio_short_trace": fmean(ratio[2] for ratio in ratios),
        "bias_without_critic": fmean(_update(policy, estimates[0], critic=0.0)[0] for policy in policies),
        "mean_return_gain": mean - flatly,
        "gain_at_double_rate": mean - faster,
        "gain_of_switch_credit": mean - without,
        "mean_return": mean,
    }


def _variance_ratios(policy: Exact, estimates: Sequence[Advantage]) -> list[float]:
    """Variance of the first estimate's update over that of each other."""
    variance = [_update(policy, estimate)[1] for estimate in estimates]
    return [variance[0] / other for other in variance[1:]]


def _update(policy: Exact, estimate: Advantage, critic: float = 1.0) -> tuple[float, float]:
    """Relative bias and total variance of ``sum_t A_t grad log pi(a_t)`` of one trajectory, exactly.

    critic: the exact values are multiplied by it.
    """
    tree = policy.tree
    credit = estimate(tree.leaves.replace(value=critic * policy.value[tree.node])).double()
    weight = tree.leaves.to_tokens(trajectory=policy.leaf_probability)
    mean = policy.through_softmax(tree.total(weight * credit))
    probability = policy.logp.exp()
    # No trajectory comes by a node twice, so the squares of its tokens' scores add up.
    score = 1 - 2 * tree.chosen(probability) + probability.square().sum(-1)[tree.node]
    variance = float((weight * credit.square() * score).sum() - mean.square().sum())
    return float((mean - policy.gradient).norm() / policy.gradient.norm()), variance
