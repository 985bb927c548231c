"""The claims of tree rollouts, on tables in a game of several steps one of which decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, cast

import torch

from stratagem.lab.exact import Exact
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.policy import TabularPolicy
from stratagem.lab.tree import Tree
from stratagem.lab.world import LabTask, LabWorld
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.recipes.reasoning.tree_rollouts import echo_ttrl, ib_tpo
from stratagem.sampling import Branching, BranchWhere, PruneWhere, RandomNodes, Rollouts
from stratagem.seeding import derive, generator
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
    "batches of 8 groups at one learning rate. Independent rollouts get the trees' tokens, rounded up to a whole "
    "rollout. local_gain is what the local advantage adds on the same trees, tree_gain what the trees add without it. "
    "Nothing here shares parameters between nodes, so that nothing learned at one node helps at another. Where a group "
    "has no success the score says nothing and forks fall by lot. Four tables a seed, tried first, took too long.",
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


# ---- no labels ------------------------------------------------------------------------------------------------------

QUESTIONS, TOKENS, THOUGHTS = 8, 8, 2
UNLABELED, STEPS_OF_BATCH = 20, 4
PER_BATCH, VOTES = 8, 32
"""Groups of independent rollouts in a batch, and rollouts in each."""

BRANCH = BranchWhere(after=1)
PRUNE = PruneWhere(steps=2)
"""For responses of three tokens; thresholds are the defaults."""


def question_game() -> TokenGame:
    """Eight questions: two tokens to think with, which lead to different doubts, and then one of eight answers."""

    def act(state: tuple[int, bool], tokens: tuple[int, ...]) -> list[Outcome] | None:
        question, thought = state
        if thought:
            return over(float(tokens[0] == _right(question)))
        return None if len(tokens) < THOUGHTS else [Outcome((question, True))]

    starts = tuple((1 / QUESTIONS, (question, False)) for question in range(QUESTIONS))
    return TokenGame("eight_questions", "Think, then answer.", TOKENS, starts, act)


def _right(question: int) -> int:
    return (3 * question + 1) % TOKENS


@claim(
    "echo_ttrl",
    statement="At test time, without labels, hybrid shaping and clipping with trees of entropy and confidence beat "
    "TTRL by 0.6 to 12.4 points with a limited budget of rollouts.",
    source="arXiv 2602.02150, as reported in summaries; what is run follows the released code",
    baseline="TTRL on independent rollouts of as many tokens: the majority's answer rewarded, GRPO with a clip of 0.2 "
    "and no shaping",
    rule=(Expect("gain", above=0),),
    scale="Tables of eight questions, two tokens of thought and one of eight answers. A table begins with random "
    "logits and a preference for the right answer that differs from question to question, such that the exact "
    "accuracy is 0.55. Then twenty batches of eight groups of 32 votes without labels, of which 16 of each "
    "train in four optimizer steps; exact accuracy at the end; two tables a seed. Trees have 8 roots and at "
    "most 32 leaves, and a batch has as many groups of them as have its tokens before anything is learned; "
    "tokens_* say how many tokens a tree had, where 32 rollouts have 96, and votes_* how many leaves. A first "
    "version, in which trees had 16 roots, at most 48 leaves and as many groups, was given up: its trees had "
    "from half to more than all of the tokens, and the 16 leaves that train were the roots. gain is everything "
    "together; tree_gain branching and pruning alone, entropy_gain branching by entropy alone, shaped_gain "
    "shaping and clip alone, and narrow_gain a control, TTRL with a fixed clip of 0.16. few_gain is another: "
    "TTRL with more groups of fewer votes, so many as a tree of branching and pruning has tokens for; on three "
    "seeds of the development it gained as much as everything together or more, so that what trees save may be "
    "all there is to them here. learned is what TTRL itself gains. low_* begin at an accuracy of 0.35, where "
    "the majority is wrong more often. Thresholds are ours, since the published ones cannot be met. A table "
    "shares nothing between questions or thoughts, so that a wrong majority can only grow. An earlier "
    "experiment, without trees and on tables taught with labels, counted thought and answer as one vote; here "
    "the answer is a turn of its own.",
)
def echo_ttrl_votes(seed: int) -> dict[str, float]:
    """Exact accuracy after learning from votes alone, above that of plain TTRL."""
    task = LabTask(question_game())
    flat: dict[str, Any] = {"branch": None, "prune": None}
    grown: dict[str, Any] = {"branch": BRANCH, "prune": PRUNE}
    plain: dict[str, Any] = {"shaping": 0.0, "least": 0.2, "most": 0.2}
    by_entropy = grown | {"branch": BRANCH.replace(confidence=None, rise=-100.0), "prune": None}
    arms = {
        "": echo_ttrl(**grown),
        "tree_": echo_ttrl(**grown, **plain),
        "entropy_": echo_ttrl(**by_entropy, **plain),
        "shaped_": echo_ttrl(**flat),
        "narrow_": echo_ttrl(**flat, shaping=0.0, least=0.16, most=0.16),
    }
    baseline = echo_ttrl(**flat, **plain)
    rows = []
    for table in range(2):
        number = derive(seed, "questions", table)
        start, unsure = (_knowing(task, number, accuracy) for accuracy in (0.55, 0.35))
        reached, low = (_unlabeled(baseline, task, number, begun) for begun in (start, unsure))
        row = {f"{name}gain": _unlabeled(recipe, task, number, start) - reached for name, recipe in arms.items()}
        row |= {"learned": reached - start.success, "low_learned": low - unsure.success}
        row["low_gain"] = _unlabeled(arms[""], task, number, unsure) - low
        for name in ("tree", "entropy"):
            told = _told(arms[f"{name}_"], task, number, start)
            row |= {f"tokens_{name}": told["tree/tokens"], f"votes_{name}": told["tree/leaves"]}
        few = echo_ttrl(**flat, **plain, votes=round(row["tokens_tree"] / (THOUGHTS + 1)))
        row["few_gain"] = _unlabeled(few, task, number, start) - reached
        rows.append(row)
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def _told(recipe: Recipe, task: LabTask, seed: int, start: Exact) -> Mapping[str, float]:
    """What is logged of a hundred groups before anything is learned."""
    return (
        LabWorld(task, seed, TabularPolicy(start.logits))
        .collect(recipe.sampler.replace(prompts_per_step=100), 0)
        .metrics
    )


def _knowing(task: LabTask, seed: int, accuracy: float) -> Exact:
    """A random table of this accuracy, with more or less of a preference for the right answer of every question."""
    tree = Tree.enumerate(task.game)
    states = cast(Sequence[tuple[int, bool]], tree.states)
    right = torch.tensor([[float(done and token == _right(q)) for token in range(TOKENS)] for q, done in states])
    source = generator(seed, "knowing")
    preferred = torch.randn(QUESTIONS, generator=source)[[question for question, _ in states]].unsqueeze(1)
    logits, low, high = tree.normal_logits(seed), -10.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        known = Exact(tree, logits + right * (middle + 1.5 * preferred))
        low, high = (middle, high) if known.success < accuracy else (low, middle)
    return known


def _unlabeled(recipe: Recipe, task: LabTask, seed: int, start: Exact) -> float:
    tokens = _told(recipe, task, seed, start).get("tree/tokens", recipe.sampler.group_size * (THOUGHTS + 1))
    groups = round(PER_BATCH * VOTES * (THOUGHTS + 1) / tokens)
    recipe = recipe.with_values({"optimization.minibatches": STEPS_OF_BATCH, "sampler.prompts_per_step": groups})
    return learn(recipe, task, derive(seed, "unlabeled"), UNLABELED, start).last.success
