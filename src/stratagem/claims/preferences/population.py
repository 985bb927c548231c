"""The claim of MNPO: a population of past policies steadies the last one."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from stratagem.claims.preferences.games import one_token, oracle, played
from stratagem.lab.world import LabTask
from stratagem.preferences import SingleVote
from stratagem.preferences.games import population, random_games
from stratagem.preferences.measures import kl, regularized_gap
from stratagem.preferences.populations import MNPO, solve_players
from stratagem.preferences.solvers import Exact, solve
from stratagem.recipe import Recipe
from stratagem.recipes import preferences
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import learn

GAMES, RESPONSES, PEOPLE = 20, 12, 3

TAU, SHARE = 0.02, 1 / 3
"""Strength of the KL to the reference, and the share of the reference in the anchor, as published."""

ITERATIONS = 300

LEARNED = 40
"""Batches of the runs that learn from votes."""


@claim(
    "mnpo",
    statement="With several opponents in place of one, preference optimisation is better where oracles are "
    "heterogeneous, consistently ahead of two-player methods such as INPO on benchmarks of following instructions, "
    "and meets many opponents without the bias of a single one.",
    source="arXiv 2509.23102, abstract; its tables were not available",
    baseline="INPO at the same strength and step, which is the same loss with one opponent",
    rule=(
        Expect("gap_below_inpo", above=0),
        Expect("oscillation_below_inpo", above=0),
        Expect("learned_gap_below_inpo", above=0),
    ),
    scale="Tables of 20 prompts with 12 responses; three people with random preferences, one of whom is asked at a "
    "time; a uniform reference, strength 0.02, share of the reference 1/3, 300 iterations of exact preferences. Gaps "
    "are of the regularised game and of last policies, oscillation the mean KL between policies in a row over the "
    "last 50. Learned runs are of the recipes in the lab on one prompt: AdamW, 40 batches of 48 groups of five "
    "answers, a vote on each pair; mean gaps of the last ten policies. Players with an oracle each are beside the "
    "rule, judged in the game of all three. Benchmarks are not within reach.",
)
def mnpo(seed: int) -> dict[str, float]:
    """Gaps and oscillations of last policies."""
    people = torch.stack([random_games(GAMES, RESPONSES, generator(seed, "person", n)) for n in range(PEOPLE)])
    wins = population(list(people))
    reference = torch.full((GAMES, RESPONSES), 1 / RESPONSES, dtype=torch.float64)
    paths = {
        players: solve(MNPO(TAU / SHARE, SHARE, (1.0,) * (players - 1)), Exact(wins), reference, ITERATIONS).path
        for players in (2, 3, 4)
    }
    gap = {players: float(regularized_gap(wins, path[-1], reference, TAU).mean()) for players, path in paths.items()}
    moved = {players: _oscillation(path) for players, path in paths.items()}
    own = solve_players(people, reference, ITERATIONS, TAU / SHARE, SHARE)[-1]
    votes = SingleVote(oracle(wins[0]))
    learned = {
        players: _learned_gap(
            preferences.mnpo(TAU / SHARE, SHARE, players, preference=votes), wins[0], reference[0], seed
        )
        for players in (2, 3)
    }
    return {
        "gap_below_inpo": gap[2] - gap[3],
        "oscillation_below_inpo": moved[2] - moved[3],
        "learned_gap_below_inpo": learned[2] - learned[3],
        "gap": gap[3],
        "gap_of_four_players": gap[4],
        "gap_of_inpo": gap[2],
        "gap_of_players_with_oracles_of_their_own": float(regularized_gap(wins, own.mean(0), reference, TAU).mean()),
        "oscillation": moved[3],
        "oscillation_of_inpo": moved[2],
        "learned_gap": learned[3],
    }


def _oscillation(path: Float64[Tensor, "iterations games responses"]) -> float:
    late = path[-51:].clamp(min=1e-300)
    return float(kl(late[1:], late[:-1]).mean())


def _learned_gap(recipe: Recipe, wins: Tensor, reference: Tensor, seed: int) -> float:
    many = recipe.with_values({"sampler.prompts_per_step": 48})
    policies = played(learn(many, LabTask(one_token(RESPONSES)), seed, LEARNED))
    # In the lab the reference is the table the run began with.
    return float(regularized_gap(wins, policies[-10:], policies[0], TAU).mean())
