"""The claims of credit that depends on entropy or length, on tables in games where thinking longer helps to a point."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import dr_grpo
from stratagem.recipes.reasoning.conditional import canon
from stratagem.rewards import OverlongPenalty
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Runs, expected_return, learn, learn_all

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


def thinking_game(name: str, odds: dict[str, tuple[float, ...]]) -> TokenGame:
    """Token 0 thinks, token 1 answers; the odds of being right follow from the prompt and the number of thoughts.

    odds: by prompt, all as likely as each other. A response of ``LIMIT`` tokens without an answer is cut.
    """

    def act(prompt: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
        if tokens[-1] == 1:
            right = odds[prompt][len(tokens) - 1]
            return [Outcome(None, right, 1.0, success=True), Outcome(None, 1 - right)]
        return [Outcome(None, truncated=True)] if len(tokens) == LIMIT else None

    starts = tuple((1 / len(odds), prompt) for prompt in odds)
    return TokenGame(name, "Think for as long as it helps, then answer.", 2, starts, act)


@claim(
    "canon",
    statement="Comparing responses with the other half of their group, by entropy, beats GRPO, Dr. GRPO and an entropy "
    "bonus on math and logic with three models, without a preference for either end; by length, favoring short ones "
    "where both halves do as well gives a better front of accuracy against tokens than penalties do.",
    source="arXiv 2509.23962, abstract; the rule and its variants as in the released code",
    baseline="dr_grpo with the same clip and group size, plain and with three penalties on length; halves by chance",
    rule=(Expect("front_gain", above=0), Expect("entropy_return_gain", above=0)),
    scale="Tables of seven decisions whose odds of success rise with the first three thoughts and no further; 40 "
    "batches of 128 responses, two tables a seed. A front is the area it covers of accuracy by share of tokens saved. "
    "Entropy is compared in three small games, as the exact return over 25 batches. A table has one entropy in every "
    "node, so its responses differ in entropy only by where they lead; no entropy bonus was run. The penalties have one "
    "arm more, the strongest, which reaches where no half does; without it, front_gain_without_strongest. In first runs "
    "the penalties' front was the larger, and halves by chance earned no less than halves by entropy: both have but "
    "half a group for a baseline, which is noisier than the whole.",
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
