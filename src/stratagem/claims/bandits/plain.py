"""Claims of policies for arms without context: optimism and posterior sampling."""

from __future__ import annotations

import numpy as np

from stratagem.bandits import UCB1, EpsilonGreedy, PlainBandit, Policy, ThompsonSampling, play
from stratagem.study.claims import Expect, claim

RUNS, ROUNDS = 32, 10_000

SCALE = (
    "Five Bernoulli arms, 0.6 against 0.4, 10,000 rounds, 32 runs a seed. second_half_share is the share of the regret "
    "that falls into the second half of the rounds: 0.5 where it is linear, as that of epsilon-greedy with a fixed "
    "epsilon of 0.1 becomes."
)


@claim(
    "ucb1",
    statement="The expected regret of UCB1 is at most sum_a 8 ln T / gap_a + (1 + pi^2 / 3) gap_a: logarithmic.",
    source="Auer, Cesa-Bianchi and Fischer, Machine Learning 47 (2002), theorem 1",
    baseline="the bound, and epsilon-greedy with epsilon 0.1",
    rule=(Expect("regret_over_bound", below=1), Expect("second_half_share", below=0.25)),
    scale=SCALE + " The bound is loose by its constant, so that staying below it says little.",
)
def ucb1(seed: int) -> dict[str, float]:
    """Regret against the bound, and how much of it is late."""
    bandit = PlainBandit.gapped(RUNS, arms=5, best=0.6, gap=0.2)
    bound = UCB1().guarantee(bandit, np.array([ROUNDS]))
    assert bound is not None, "arms that pay 0 or 1"
    regret, late = _regret(UCB1(), seed)
    greedy, greedy_late = _regret(EpsilonGreedy(0.1), seed)
    return {
        "regret_over_bound": regret / float(bound.mean()),
        "second_half_share": late,
        "regret": regret,
        "epsilon_greedy_regret": greedy,
        "epsilon_greedy_second_half_share": greedy_late,
    }


@claim(
    "thompson_sampling",
    statement="Thompson sampling has logarithmic expected regret.",
    source="arXiv 1111.1797, abstract; that it is below that of UCB1 in practice is Chapelle and Li's (NIPS 2011)",
    baseline="UCB1",
    rule=(Expect("second_half_share", below=0.25), Expect("minus_ucb1", below=0)),
    scale=SCALE,
)
def thompson_sampling(seed: int) -> dict[str, float]:
    """Regret less that of UCB1, and how much of it is late."""
    regret, late = _regret(ThompsonSampling(), seed)
    optimist, _ = _regret(UCB1(), seed)
    return {"second_half_share": late, "minus_ucb1": regret - optimist, "regret": regret, "ucb1_regret": optimist}


def _regret(policy: Policy, seed: int) -> tuple[float, float]:
    """Mean regret at the end, and the share of it in the second half."""
    regret = play(PlainBandit.gapped(RUNS, arms=5, best=0.6, gap=0.2), policy, ROUNDS, seed).regret.mean(0)
    return float(regret[-1]), float(1 - regret[ROUNDS // 2 - 1] / regret[-1])
