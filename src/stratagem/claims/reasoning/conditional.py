"""The claims of credit that depends on entropy or length, on tables in games where thinking longer helps to a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

import torch
from jaxtyping import Bool
from torch import Tensor

from stratagem.advantages import GroupRule, WeighedGroups
from stratagem.experience import Experience
from stratagem.lab import Exact, Tree
from stratagem.lab.draw import draw
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.policy import SharedPolicy
from stratagem.lab.world import LabTask
from stratagem.partition import Partition
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import dr_grpo
from stratagem.recipes.reasoning.conditional import adora, canon
from stratagem.rewards import OverlongPenalty
from stratagem.seeding import derive, generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, Runs, expected_return, learn, learn_all

LIMIT = 8
"""Most tokens of a response."""

# ---- halves of a group ----------------------------------------------------------------------------------------------

KNEE = (0.1, 0.3, 0.6, 0.9, 0.9, 0.9, 0.9, 0.9)
"""Odds of a right answer after so many thoughts."""

WORTHS = (1.0, 0.9, 0.7)
PENALTIES = (0.0, 0.1, 0.3, 1.0)
"""Arms of the two fronts; a penalty is what a response of most tokens is charged, others in proportion."""

TABLES, BATCHES = 2, 40
GAMES = ("prompts", "length", "four_by_four")

Point = tuple[float, float]


def thinking_game(name: str, odds: Mapping[str, tuple[float, ...]]) -> TokenGame:
    """Token 0 thinks, token 1 answers; the odds of being right follow from the prompt and the number of thoughts.

    odds: by prompt, all as likely as each other. A response of ``LIMIT`` tokens without an answer is cut.
    """

    def act(state: tuple[str, int], tokens: tuple[int, ...]) -> list[Outcome]:
        prompt, thoughts = state
        if tokens[0] == 1:
            right = odds[prompt][thoughts]
            return [Outcome(None, right, 1.0, success=True), Outcome(None, 1 - right)]
        return [Outcome(None, truncated=True) if thoughts == LIMIT - 1 else Outcome((prompt, thoughts + 1))]

    starts = tuple((1 / len(odds), (prompt, 0)) for prompt in odds)
    return TokenGame(name, "Think for as long as it helps, then answer.", 2, starts, act)


@claim(
    "canon",
    statement="Comparing responses with the other half of their group, by entropy, beats GRPO, Dr. GRPO and an entropy "
    "bonus on math and logic with three models, without a preference for either end; by length, favoring short ones "
    "where both halves do as well gives a better front of accuracy against tokens than penalties do.",
    source="arXiv 2509.23962, abstract; the rule and its variants as in the released code",
    baseline="dr_grpo with the same clip and group size, plain and with three penalties on length; halves by chance",
    rule=(Expect("front_gain", above=0), Expect("entropy_return_gain", above=0)),
    scale="Tables of eight decisions whose odds of success rise with the first three thoughts and no further; 40 "
    "batches of 128 responses, two tables a seed. A front is the area it covers of accuracy by share of tokens saved. "
    "Entropy is compared in three small games, as the exact return over 25 batches. A table has one entropy in every "
    "node, so its responses differ in entropy only by where they lead; no entropy bonus was run. The penalties have "
    "one arm more, the strongest, which reaches where no half does: front_gain_without_strongest is without it. In "
    "first runs the penalties' front was the larger, by that arm alone, and halves by entropy earned less than halves "
    "by chance, which hardly differed from Dr. GRPO. Those runs had a response in one turn, where it now has a turn "
    "for every token; the decisions are the same, and so is the rule.",
)
def canon_halves(seed: int) -> dict[str, float]:
    """Areas of fronts after learning when to stop thinking, and exact returns by metric in games of the lab."""
    task = LabTask(thinking_game("knee", {"prompt": KNEE}))
    halves = [_points(canon("length", worth=worth), task, seed) for worth in WORTHS]
    charged = [_points(_charged(penalty), task, seed) for penalty in PENALTIES]
    by = {
        name: learn_all(recipe, GAMES, seed, 25)
        for name, recipe in {"ours": canon(), "plain": _charged(0.0), "chance": canon("order")}.items()
    }
    return {
        "front_gain": _mean_area(halves) - _mean_area(charged),
        "entropy_return_gain": _return(by["ours"]) - _return(by["plain"]),
        "entropy_return_gain_over_chance": _return(by["ours"]) - _return(by["chance"]),
        "entropy_final_gain": by["ours"].final_return - by["plain"].final_return,
        "front_gain_without_strongest": _mean_area(halves) - _mean_area(charged[:-1]),
        "front": _mean_area(halves),
        **_figures("worth", WORTHS, halves),
        **_figures("penalty", PENALTIES, charged),
    }


def _charged(penalty: float) -> Recipe:
    recipe = dr_grpo().with_values({"objective.gate.high": 0.28, "sampler.group_size": 16})
    return recipe.replace(rewards=(OverlongPenalty(LIMIT, LIMIT, penalty),)) if penalty else recipe


def _points(recipe: Recipe, task: LabTask, seed: int) -> list[Point]:
    """Accuracy and share of tokens saved in the end, by first table."""
    runs = [learn(recipe, task, derive(seed, "table", n), BATCHES).last for n in range(TABLES)]
    return [(policy.success, 1 - policy.length / LIMIT) for policy in runs]


def _mean_area(arms: Sequence[Sequence[Point]]) -> float:
    """Of the fronts of several arms, table by table."""
    return fmean(_area(points) for points in zip(*arms, strict=True))


def _area(points: Sequence[Point]) -> float:
    """Covered by the rectangles from the origin to the points."""
    area = reached = 0.0
    for accuracy, saved in sorted(points, reverse=True):
        area += accuracy * max(saved - reached, 0.0)
        reached = max(saved, reached)
    return area


def _figures(name: str, values: Sequence[float], arms: Sequence[Sequence[Point]]) -> dict[str, float]:
    kinds = ("accuracy", "saved")
    return {
        f"{name}_{value:g}_{kind}": fmean(point[column] for point in points)
        for value, points in zip(values, arms, strict=True)
        for column, kind in enumerate(kinds)
    }


def _return(runs: Runs) -> float:
    return runs.mean(expected_return)


# ---- weighed groups -------------------------------------------------------------------------------------------------

PROMPTS = {
    "easy": (0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7),
    "hard": (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.65, 0.65),
}
"""Odds of a right answer after so many thoughts, which help with the hard prompt alone."""

STARTS, RATE = 4, 0.05


@dataclass(frozen=True)
class _OfNeighbour(GroupRule):
    """What the rule says of the group before: as many groups are damped, but none for its own sake."""

    of: GroupRule

    def __call__(self, x: Experience) -> Bool[Tensor, " groups"]:
        return self.of(x).roll(1)


@claim(
    "adora",
    statement="Damping prompts whose longest success is no longer than their failures makes responses grow, and gets "
    "more out of few data: after 100 steps on logic puzzles a model of 7B solves 40 of AMC, with GRPO 35, and AIME 8 "
    "for 6; on the puzzles themselves it is not better. A model of vision and language reaches 73.5 on MathVista for "
    "70.2, and its length grows steadily.",
    source="the authors' report of March 2025 (arXiv 2602.10019) and their released code",
    baseline="grpo; the same weights given to other groups; grpo at twice the learning rate",
    rule=(
        Expect("length_gain", above=0),
        Expect("hard_gain", above=0),
        Expect("length_gain_over_neighbours", above=0),
    ),
    scale="A policy that thinks for as long whatever it is asked, eight decisions, and two prompts, of which only the "
    "hard one is helped by thoughts; 40 batches of 128 responses, four first policies a seed. Lengths and accuracies "
    "are exact, and means over the run. Transfer to other problems, which the paper's numbers are of, cannot be shown. "
    "In first runs most groups of both prompts counted in full, fewer of the hard one, so the gain is not from "
    "attention to it; and grpo at twice the learning rate, the cheap control, gained eight times as much or more in "
    "length and on the hard prompt (fast_length_gain). That arm took the place of the release for vision, which "
    "learned exactly as that for text did: without partial rewards they hardly differ. No region of the rule was "
    "changed.",
)
def adora_lengths(seed: int) -> dict[str, float]:
    """Exact lengths and accuracies while learning how long to think, and how many groups of each prompt are damped."""
    task = LabTask(thinking_game("prompts_to_think_about", PROMPTS))
    text = adora()
    assert isinstance(text.advantage, WeighedGroups)
    arms = {
        "ours": text,
        "neighbours": text.replace(advantage=text.advantage.replace(rule=_OfNeighbour(text.advantage.rule))),
        "half": text.with_values({"advantage.others": 0.5}),
        "dropped": text.with_values({"advantage.others": 0.0}),
        "grpo": text.with_values({"advantage.others": 1.0}),
        "fast": text.with_values({"advantage.others": 1.0}),
    }
    rates = {name: 2 * RATE if name == "fast" else RATE for name in arms}
    seeds = [derive(seed, "start", n) for n in range(STARTS)]
    runs = {
        name: [learn(arm, task, n, BATCHES, _thinker(task, n), rates[name]) for n in seeds]
        for name, arm in arms.items()
    }
    length = {name: fmean(run.mean(lambda policy: policy.length) for run in some) for name, some in runs.items()}
    easy, hard = ({name: _mean_accuracy(some, start) for name, some in runs.items()} for start in range(2))
    in_full = [_in_full(text.advantage.rule, run.policies[0], n) for run, n in zip(runs["ours"], seeds, strict=True)]
    others = [name for name in arms if name not in ("ours", "grpo")]
    return {
        "length_gain": length["ours"] - length["grpo"],
        "hard_gain": hard["ours"] - hard["grpo"],
        "length_gain_over_neighbours": length["ours"] - length["neighbours"],
        "easy_gain": easy["ours"] - easy["grpo"],
        "hard_gain_over_neighbours": hard["ours"] - hard["neighbours"],
        "easy_in_full": fmean(share for share, _ in in_full),
        "hard_in_full": fmean(share for _, share in in_full),
        "length": length["grpo"],
        **{f"{name}_length_gain": length[name] - length["grpo"] for name in others},
        **{f"{name}_hard_gain": hard[name] - hard["grpo"] for name in others},
    }


def _thinker(task: LabTask, seed: int) -> SharedPolicy:
    """A random policy that counts its thoughts and does not look at the prompt."""
    thoughts = [state[1] for state in Tree.enumerate(task.game).states]  # type: ignore[index]
    return SharedPolicy(torch.tensor(thoughts), 0.5 * torch.randn(LIMIT, 2, generator=generator(seed, "thinker")))


def _mean_accuracy(runs: Sequence[Run], start: int) -> float:
    return fmean(run.mean(partial(_accuracy, start=start)) for run in runs)


def _accuracy(policy: Exact, start: int) -> float:
    """Probability of success at a start."""
    x = policy.tree.leaves
    assert x.success is not None
    right = x.group_of_trajectory.sum(policy.leaf_probability * x.success)
    return float((right / policy.start_probability)[start])


def _in_full(rule: GroupRule, policy: Exact, seed: int) -> tuple[float, float]:
    """Share of groups of the easy and of the hard prompt that count in full."""
    x = draw(policy.tree.leaves, policy.leaf_probability, 512, 16, generator(seed, "verdicts"))
    assert x.task_id is not None
    found = Partition.by(x.task_id).mean(rule(x).double())
    return float(found[0]), float(found[1])
