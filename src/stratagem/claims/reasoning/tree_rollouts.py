"""The claims of tree rollouts, on tables in a game of several steps one of which decides."""

from __future__ import annotations

import math
from statistics import fmean

from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipes.baselines import grpo
from stratagem.recipes.reasoning.tree_rollouts import ib_tpo
from stratagem.sampling import Branching, RandomNodes, Rollouts
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import expected_return, learn

STEPS, WAYS = 5, 4
PIVOTS = (1, 2, 3)
"""Which step decides, by start; the first is step 0."""

GROUPS, TABLES, BATCHES = 400, 3, 20
SPREAD = 2.0
"""Of the logits of a table, so that some steps are all but settled, for better or worse."""


def pivot_game() -> TokenGame:
    """Steps of one token; the one at the pivot has to be 0, and no other one matters."""

    def act(state: tuple[int, int, bool], tokens: tuple[int, ...]) -> list[Outcome]:
        pivot, step, right = state
        right = right and (step != pivot or tokens[0] == 0)
        if step == STEPS - 1:
            return [Outcome(reward=float(right), success=right)]
        return [Outcome((pivot, step + 1, right))]

    starts = tuple((1 / len(PIVOTS), (pivot, 0, True)) for pivot in PIVOTS)
    return TokenGame("pivot", "One step of five decides.", WAYS, starts, act)


@claim(
    "ib_tpo",
    statement="Trees that grow at the nodes of the highest IB-score give 50 % more trajectories from the tokens of "
    "independent rollouts, more groups whose rewards differ (60.2 % against 54.7 % of independent ones) and, with the "
    "local advantage, 2.9 to 3.6 points more than GRPO.",
    source="arXiv 2605.28109, as reported in summaries; the paper itself was not available",
    baseline="independent rollouts of at least as many tokens, trees that grow at random nodes, and GRPO on the former",
    rule=(
        Expect("effective_gain", above=0),
        Expect("effective_gain_over_random", above=0),
        Expect("return_gain", above=0),
    ),
    scale="Tables of five steps with four ways each, one of which decides, three starts, three tables a seed. Shares "
    "of groups with differing rewards over 400 groups of a table that has not learned; the exact return over 20 "
    "batches of 8 groups at one learning rate. Independent rollouts get the trees' tokens, rounded up to a whole rollout. "
    "local_gain is what the local advantage adds on the same trees, tree_gain what the trees add without it. Nothing "
    "here shares parameters between nodes, so that nothing learned at one node helps at another.",
)
def ib_tpo_trees(seed: int) -> dict[str, float]:
    """Shares of groups that teach something, and exact returns, at the same number of tokens."""
    task = LabTask(pivot_game(), spread=SPREAD)
    ours = ib_tpo()
    assert isinstance(ours.sampler, Branching)
    random = ours.sampler.replace(at=RandomNodes())
    rows = []
    for table in range(TABLES):
        number = derive(seed, "table", table)
        guided, strayed = (_grown(sampler, task, number) for sampler in (ours.sampler, random))
        size = math.ceil(guided["tree/tokens"] / STEPS)
        flat = _effective(Rollouts(prompts_per_step=GROUPS, group_size=size), task, number)
        returns = {
            name: learn(recipe, task, number, BATCHES).mean(expected_return)
            for name, recipe in {
                "ours": ours,
                "plain": grpo().replace(sampler=Rollouts(group_size=size)),
                "tree": ib_tpo(local=0.0),
            }.items()
        }
        rows.append(
            {
                "effective": guided["tree/effective"],
                "effective_gain": guided["tree/effective"] - flat,
                "effective_gain_over_random": guided["tree/effective"] - strayed["tree/effective"],
                "trajectories_per_token_gain": STEPS * 12 / guided["tree/tokens"] - 1,
                "tokens": guided["tree/tokens"],
                "tokens_random": strayed["tree/tokens"],
                "informed": guided["tree/informed"],
                "return_gain": returns["ours"] - returns["plain"],
                "local_gain": returns["ours"] - returns["tree"],
                "tree_gain": returns["tree"] - returns["plain"],
            }
        )
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def _grown(sampler: Branching, task: LabTask, seed: int) -> dict[str, float]:
    collected = LabWorld(task, seed).collect(sampler.replace(prompts_per_step=GROUPS), 0)
    return dict(collected.metrics)


def _effective(sampler: Rollouts, task: LabTask, seed: int) -> float:
    x = LabWorld(task, seed).collect(sampler, 0).x
    assert x is not None
    group = x.group_of_trajectory
    return float((group.max(x.returns) > group.min(x.returns)).double().mean())
