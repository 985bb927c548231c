"""The claim of SPO: self-play on win rates finds the minimax winner and stands noise."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.claims.preferences.games import average_exploitability, intransitive, one_token, oracle
from stratagem.claims.reasoning.normalized import QUESTIONS, QUIZ, first_policy
from stratagem.lab.world import LabTask
from stratagem.parts import Preference
from stratagem.preferences import BradleyTerry, Noisy, SingleVote
from stratagem.preferences.measures import exploitability
from stratagem.preferences.solvers import SPPO, Exact, fitted_scores, solve
from stratagem.recipes import preferences
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import learn

RESPONSES = 8

LEARNED = 60
"""Batches of the runs that learn from votes."""


@claim(
    "spo",
    statement="Self-play in which a trajectory earns the share of the others it beats comes to the minimax winner "
    "where preferences go in circles, which no reward model can stand for, and stays good where a comparison in five "
    "is wrong; on continuous control it needs fewer samples than learning from a reward model.",
    source="arXiv 2401.04056, abstract; its tables were not available",
    baseline="the response that the likeliest Bradley-Terry scores rank first, which maximising them leads to",
    rule=(
        Expect("learned_below_scores", above=0),
        Expect("slope", below=-0.4),
        Expect("kept_under_noise", above=0.5),
    ),
    scale="Responses of one token: games of eight, half of the people asked with scores and half preferring in "
    "circles. Learned: the recipe in the lab on one prompt, AdamW, 60 batches of 8 groups of 16 answers, a vote on "
    "each pair, exploitability of the mean policy; the scores are fitted to exact preferences of all pairs, so that "
    "the baseline has no noise. The slope is that of exact multiplicative weights' mean policy on 20 games, from 100 "
    "to 1,600 iterations with a step of 2 / sqrt(T). Noise: 64 questions with eight answers, 30 batches, votes for "
    "the right one of which one in five is turned round; the figure is the gain in exact return over that without "
    "noise. In first runs the scores' favourite was hardly exploitable in two games of three: half of these people "
    "have scores, and the mean policy remembers where it began. Continuous control and sample efficiency against a "
    "reward model that is learned are not tried here.",
)
def spo(seed: int) -> dict[str, float]:
    """Exploitability of mean policies, and returns under noise."""
    wins = intransitive(20, RESPONSES, generator(seed, "games"))
    reference = torch.full((20, RESPONSES), 1 / RESPONSES, dtype=torch.float64)
    first = fitted_scores(wins, reference).argmax(-1)
    scores = exploitability(wins, torch.nn.functional.one_hot(first, RESPONSES).double())
    recipe = preferences.spo(SingleVote(oracle(wins[0])))
    run = learn(recipe.with_values({"sampler.prompts_per_step": 8}), LabTask(one_token(RESPONSES)), seed, LEARNED)
    learned = average_exploitability(run, wins[0])
    gap = {count: _exact(wins, reference, count) for count in (100, 1600)}
    start = first_policy(seed).expected_return
    clean, noised = (_return(of, seed) for of in (BradleyTerry(0.0), Noisy(BradleyTerry(0.0), 0.2)))
    return {
        "learned_below_scores": float(scores[0]) - learned,
        "slope": math.log(gap[1600] / gap[100]) / math.log(16),
        "kept_under_noise": (noised - start) / (clean - start),
        "learned": learned,
        "exploitability_of_scores": float(scores.mean()),
        "exploitability_after_1600": gap[1600],
        "return_without_noise": clean,
        "return_with_noise": noised,
        "first_return": start,
    }


def _exact(wins: Tensor, reference: Float64[Tensor, "games responses"], count: int) -> float:
    average = solve(SPPO(2 / math.sqrt(count)), Exact(wins), reference, count).average
    return float(exploitability(wins, average).mean())


def _return(preference: Preference, seed: int) -> float:
    recipe = preferences.spo(SingleVote(preference), group_size=8)
    recipe = recipe.with_values({"sampler.prompts_per_step": QUESTIONS})
    return learn(recipe, LabTask(QUIZ), seed, 30, first_policy(seed)).last.expected_return
