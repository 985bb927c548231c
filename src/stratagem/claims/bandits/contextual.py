"""Claims of policies for arms with context: linear optimism and regression oracles."""

from __future__ import annotations

import math

import numpy as np

from stratagem.bandits import (
    UCB1,
    Aggregated,
    Bandit,
    FastCB,
    FiniteClassBandit,
    GreedyOracle,
    LinearBandit,
    LinUCB,
    Policy,
    SquareCB,
    play,
    squarecb_gamma,
)
from stratagem.study.claims import Expect, claim

RUNS, ARMS, FUNCTIONS = 32, 5, 16

CLASS = "A class of 16 random functions over 20 contexts and 5 arms, one of which is right; 32 runs a seed. "


def _regret(bandit: Bandit, policy: Policy, rounds: int, seed: int) -> float:
    return float(play(bandit, policy, rounds, seed).regret[:, -1].mean())


@claim(
    "linucb",
    statement="Where rewards are linear in the features, LinUCB earns more than epsilon-greedy exploration with the "
    "same features and than bandits without features (12.5 % more clicks than the latter in the paper).",
    source="arXiv 1003.0146, abstract and section 5",
    baseline="epsilon-greedy around the same ridge regression, and UCB1 without features",
    rule=(Expect("minus_epsilon_greedy", below=0), Expect("minus_ucb1", below=0)),
    scale="Ten arms whose five features are drawn anew each round, one weight vector for all, rewards 0 or 1, 3000 "
    "rounds, 32 runs a seed, width 1, epsilon 0.1: a simulation, not the log of news articles. Features here are drawn "
    "anew for each arm, so that a bandit without them can learn nothing. greedy_regret is with epsilon 0.",
)
def linucb(seed: int) -> dict[str, float]:
    """Regret less that of the baselines."""
    bandit = LinearBandit(RUNS, seed)
    policies = {
        "linucb": LinUCB(),
        "epsilon_greedy": GreedyOracle(0.1),
        "greedy": GreedyOracle(0.0),
        "ucb1": UCB1(),
    }
    regret = {name: _regret(bandit, policy, 3000, seed) for name, policy in policies.items()}
    return {
        "minus_epsilon_greedy": regret["linucb"] - regret["epsilon_greedy"],
        "minus_ucb1": regret["linucb"] - regret["ucb1"],
        **{f"{name}_regret": value for name, value in regret.items()},
    }


@claim(
    "squarecb",
    statement="With a realisable class, SquareCB's regret is of the order sqrt(K T Reg), Reg that of the regression "
    "oracle, which is optimal; epsilon-greedy's, explored at its best rate, is of the order T^(2/3).",
    source="arXiv 2002.04926, theorem 1; the constant sqrt(2 K T Reg) from its lemma 3, in expectation",
    baseline="epsilon-greedy around the same oracle with epsilon = (K Reg / T)^(1/3)",
    rule=(
        Expect("regret_over_bound", below=1),
        Expect("slope", below=0.6),
        Expect("minus_epsilon_greedy", below=0),
    ),
    scale=CLASS + "2000 and 8000 rounds, gamma the best for each; slope is that of ln regret by ln T between the two. "
    "greedy_regret is that of the oracle without any exploration: random contexts explore by themselves, and a class "
    "in which all functions differ everywhere needs none, so that here greedy does best; the claim is about bounds. "
    "Exploratory numbers of similar quantities with one seed were seen before the rule was written.",
)
def squarecb(seed: int) -> dict[str, float]:
    """Regret against bound and epsilon-greedy at two horizons."""
    bandit = FiniteClassBandit(RUNS, seed, ARMS, FUNCTIONS)
    bound = math.log(FUNCTIONS) / 2
    regret = {
        rounds: _regret(bandit, SquareCB(squarecb_gamma(ARMS, rounds, bound), Aggregated()), rounds, seed)
        for rounds in (2000, 8000)
    }
    epsilon = (ARMS * bound / 8000) ** (1 / 3)
    greedy = _regret(bandit, GreedyOracle(epsilon, Aggregated()), 8000, seed)
    return {
        "regret_over_bound": regret[8000] / math.sqrt(2 * ARMS * 8000 * bound),
        "slope": math.log(regret[8000] / regret[2000]) / math.log(4),
        "minus_epsilon_greedy": regret[8000] - greedy,
        "regret": regret[8000],
        "epsilon_greedy_regret": greedy,
        "greedy_regret": _regret(bandit, GreedyOracle(0.0, Aggregated()), 8000, seed),
    }


@claim(
    "fastcb",
    statement="FastCB's regret follows the cost L* of the best policy, sqrt(K L* Reg) + K Reg, instead of the number "
    "of rounds, so that it is ahead of SquareCB where the best arms cost little.",
    source="arXiv 2107.02237, abstract; its text was not at hand, and the constants of gamma are ours, of its order",
    baseline="SquareCB with the gamma that is best for its bound",
    rule=(Expect("ratio_at_small_costs", below=1), Expect("ratio_small_minus_large", below=0)),
    scale=CLASS + "8000 rounds. Costs are uniform in [0, 0.1] (small) or in [0, 1] (large); gamma is "
    "max(sqrt(K L* / (3 Reg)), 10 K) with L* known. ratio is FastCB's regret over SquareCB's.",
)
def fastcb(seed: int) -> dict[str, float]:
    """Regret over that of SquareCB, with small costs and with large ones."""
    rounds, measured = 8000, {}
    for name, lowest in (("small", 0.9), ("large", 0.0)):
        bandit = FiniteClassBandit(RUNS, seed, ARMS, FUNCTIONS, lowest=lowest)
        right = np.take_along_axis(bandit.table, bandit.right[:, None, None, None], -1)[..., 0]
        least = rounds * float(1 - right.max(-1).mean())
        gamma = max(math.sqrt(ARMS * least / (3 * math.log(FUNCTIONS))), 10 * ARMS)
        square = squarecb_gamma(ARMS, rounds, math.log(FUNCTIONS) / 2)
        measured[name] = (
            _regret(bandit, FastCB(gamma), rounds, seed),
            _regret(bandit, SquareCB(square, Aggregated()), rounds, seed),
        )
    small, large = (fast / slow for fast, slow in measured.values())
    return {
        "ratio_at_small_costs": small,
        "ratio_small_minus_large": small - large,
        "ratio_at_large_costs": large,
        "regret_at_small_costs": measured["small"][0],
        "squarecb_regret_at_small_costs": measured["small"][1],
    }
