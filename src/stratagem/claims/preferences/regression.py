"""The claims of SPPO and INPO: where people prefer in circles, no scores lead to the winner, and they do."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.claims.preferences.games import average_exploitability, intransitive, one_token, oracle, played
from stratagem.lab.world import LabTask
from stratagem.preferences import SingleVote
from stratagem.preferences.measures import exploitability, kl, regularized_gap, regularized_nash
from stratagem.preferences.solvers import INPO, SPPO, Exact, OnlineDPO, OnlineIPO, fitted_scores, solve
from stratagem.recipe import Recipe
from stratagem.recipes import preferences
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

RESPONSES = 8

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of the KL to the reference, for policies that maximise scores: the best of them counts, game by game."""

LEARNED = 40
"""Batches of the runs that learn from votes."""

SAMPLED = {"sampler.prompts_per_step": 48}


# ---- SPPO -----------------------------------------------------------------------------------------------------------


@claim(
    "sppo",
    statement="Self-play that fits log-ratios to win rates nears the Nash policy of preferences (a duality gap of "
    "O(1 / sqrt(T)) for the mean policy), where methods on Bradley-Terry scores such as DPO and IPO cannot represent "
    "what is preferred; length-controlled win rate on AlpacaEval 2.0 28.5 % against GPT-4-Turbo from a model of 7 B.",
    source="arXiv 2405.00675, abstract and the theorem on convergence",
    baseline="the best policy for fitted Bradley-Terry scores, iterated DPO, online IPO",
    rule=(
        Expect("exploitability_below_scores", above=0),
        Expect("exploitability_below_dpo", above=0),
        Expect("slope", below=-0.4),
        Expect("learned_below_dpo", above=0),
    ),
    scale="Tables of 20 prompts with eight responses; half of the people asked have scores, half prefer in circles. "
    "Exact preferences, a uniform reference, 400 iterations, step 2 / sqrt(T); the slope is that of the mean policy's "
    "exploitability from 100 to 1,600. Scores are fitted to all pairs, and the best of five strengths of the KL is "
    "taken for each prompt, with hindsight. DPO is iterated with fresh pairs, and its mean policy judged as SPPO's "
    "is. Learned runs are of the recipes in the lab on one prompt: AdamW, 40 batches of 48 groups of five answers, a "
    "vote on each pair, mean policies. AlpacaEval is not within reach. Beside the rule, the best scores against SPPO "
    "after 6,400 iterations: scores stay where they are, and the mean policy goes on.",
)
def sppo(seed: int) -> dict[str, float]:
    """Exploitability of mean policies."""
    wins = intransitive(20, RESPONSES, generator(seed, "games"))
    reference = torch.full((20, RESPONSES), 1 / RESPONSES, dtype=torch.float64)
    gap = {count: _of_sppo(wins, reference, count) for count in (100, 400, 1600, 6400)}
    scores = fitted_scores(wins, reference)
    best = torch.stack([exploitability(wins, torch.softmax(scores / s, -1)) for s in STRENGTHS]).amin(0)
    dpo = solve(OnlineDPO(1.0), Exact(wins), reference, 400)
    ipo = solve(OnlineIPO(0.1), Exact(wins), reference, 400)
    votes = SingleVote(oracle(wins[0]))
    learned = {
        "sppo": _learned(preferences.sppo(preference=votes), seed),
        "dpo": _learned(preferences.online_dpo(preference=votes, group_size=5), seed),
    }
    figures = {name: average_exploitability(run, wins[0]) for name, run in learned.items()}
    return {
        "exploitability_below_scores": float((best - gap[400]).mean()),
        "exploitability_below_scores_after_6400": float((best - gap[6400]).mean()),
        "exploitability_below_dpo": float((exploitability(wins, dpo.average) - gap[400]).mean()),
        "exploitability_below_ipo": float((exploitability(wins, ipo.average) - gap[400]).mean()),
        "slope": math.log(float(gap[1600].mean() / gap[100].mean())) / math.log(16),
        "learned_below_dpo": figures["dpo"] - figures["sppo"],
        "learned": figures["sppo"],
        "exploitability": float(gap[400].mean()),
        "exploitability_of_reference": float(exploitability(wins, reference).mean()),
    }


def _of_sppo(wins: Tensor, reference: Tensor, count: int) -> Float64[Tensor, " games"]:
    return exploitability(wins, solve(SPPO(2 / math.sqrt(count)), Exact(wins), reference, count).average)


def _learned(recipe: Recipe, seed: int) -> Run:
    return learn(recipe.with_values(SAMPLED), LabTask(one_token(RESPONSES)), seed, LEARNED)


# ---- INPO -----------------------------------------------------------------------------------------------------------

TAU, ETA = 0.1, 3.0


@claim(
    "inpo",
    statement="Mirror descent on pairs of answers, without estimating a win rate, brings the last policy to the Nash "
    "policy of the regularised preference game, and does better than iterating on Bradley-Terry rewards: 42.6 % "
    "length-controlled win rate on AlpacaEval 2.0 and 37.8 % on Arena-Hard from a model of 8 B, ahead of iterative "
    "DPO and SPPO.",
    source="arXiv 2407.00617, abstract and the theorems on convergence",
    baseline="iterated DPO at the same strength; SPPO's last policy",
    rule=(
        Expect("distance", below=1e-3),
        Expect("gap_below_dpo", above=0),
        Expect("gap_below_sppo", above=0),
        Expect("learned_gap_below_dpo", above=0),
    ),
    scale="Tables of 20 prompts with eight responses; half of the people asked have scores, half prefer in circles. "
    "Strength 0.1, inverse step 3, 300 iterations, a uniform reference; distances and gaps are of the regularised "
    "game and of last policies. Learned runs are of the recipes in the lab on one prompt: AdamW, 40 batches of 48 "
    "groups of five answers, a vote on each pair; their gaps are mean ones of the last ten policies. Win rates on "
    "benchmarks are not within reach.",
)
def inpo(seed: int) -> dict[str, float]:
    """Distances and gaps of last policies."""
    wins = intransitive(20, RESPONSES, generator(seed, "games"))
    reference = torch.full((20, RESPONSES), 1 / RESPONSES, dtype=torch.float64)
    solution = regularized_nash(wins, reference, TAU)
    last = solve(INPO(TAU, ETA), Exact(wins), reference, 300).last
    dpo = solve(OnlineDPO(TAU), Exact(wins), reference, 300).last
    sppo_last = solve(SPPO(1 / ETA), Exact(wins), reference, 300).last
    gap = {
        name: float(regularized_gap(wins, policy, reference, TAU).mean())
        for name, policy in (("inpo", last), ("dpo", dpo), ("sppo", sppo_last), ("reference", reference))
    }
    votes = SingleVote(oracle(wins[0]))
    learned = {
        "inpo": _learned(preferences.inpo(ETA, TAU, votes, group_size=5), seed),
        "dpo": _learned(preferences.online_dpo(TAU, votes, group_size=5), seed),
    }
    learned_gap = {name: _gap_in_the_end(run, wins[0]) for name, run in learned.items()}
    return {
        "distance": float(kl(solution, last).amax()),
        "gap_below_dpo": gap["dpo"] - gap["inpo"],
        "gap_below_sppo": gap["sppo"] - gap["inpo"],
        "learned_gap_below_dpo": learned_gap["dpo"] - learned_gap["inpo"],
        "learned_gap": learned_gap["inpo"],
        "gap": gap["inpo"],
        "gap_of_reference": gap["reference"],
    }


def _gap_in_the_end(run: Run, wins: Tensor) -> float:
    policies = played(run)
    # In the lab the reference is the table the run began with.
    return float(regularized_gap(wins, policies[-10:], policies[0], TAU).mean())
