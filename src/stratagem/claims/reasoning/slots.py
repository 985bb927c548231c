"""Claims of systems made of search and learning, on tables that learn chains of arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import torch

from stratagem.lab import Exact
from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import reinforce, rejection_sft
from stratagem.seeding import generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn
from stratagem.study.scaling import best_of_n

MODULUS, STEPS, PROBLEMS = 12, 4, 6
OPERATIONS: tuple[Callable[[int], int], ...] = (lambda n: n + 1, lambda n: n + 5, lambda n: 2 * n, lambda n: 3 * n)

SAMPLES = (1, 4, 16, 64)
"""Solutions sampled for every problem, in training and in the test."""

PROMPTS, BATCHES, EARLY = 8, 60, 6
ERRING = 0.8
"""Accuracy of the verifier that is no oracle."""

LEARNERS = {"cloning": rejection_sft, "gradient": reinforce}


def arithmetic_game(seed: int) -> TokenGame:
    """Four operations in a row, modulo 12, are to lead from one number to another; the seed chooses six problems."""
    ways = [(start, _reached(start)) for start in range(MODULUS)]
    solvable = [(start, target) for start, reached in ways for target in sorted(reached)]
    chosen = torch.randperm(len(solvable), generator=generator(seed, "problems"))[:PROBLEMS].tolist()

    def act(state: tuple[int, int, int], tokens: tuple[int, ...]) -> list[Outcome]:
        number, target, step = state
        number = OPERATIONS[tokens[0]](number) % MODULUS
        if step == STEPS - 1:
            return [Outcome(reward=float(number == target), success=number == target)]
        return [Outcome((number, target, step + 1))]

    starts = tuple((1 / PROBLEMS, (*solvable[n], 0)) for n in chosen)
    return TokenGame("arithmetic", "Four operations from one number to another.", len(OPERATIONS), starts, act)


def _reached(start: int) -> set[int]:
    numbers = {start}
    for _ in range(STEPS):
        numbers = {operation(number) % MODULUS for number in numbers for operation in OPERATIONS}
    return numbers


@claim(
    "o1_roadmap_survey",
    statement="Search and learning both scale: more solutions sampled in training and more sampled in the test each "
    "raise performance, with diminishing returns; cloning the solutions found is the quick way to begin, a policy "
    "gradient that also uses the wrong ones goes further.",
    source="arXiv 2412.14135, the sections on search, on learning and on scaling laws; a survey without numbers of its "
    "own, so the last two patterns are its recommended order of methods made measurable",
    baseline="one sample for one; expert iteration against REINFORCE; a verifier that is right in 80 %; as many "
    "samples of more problems at a time",
    rule=(
        Expect("train_search_gain", above=0),
        Expect("test_search_gain", above=0),
        Expect("train_diminishing", above=0),
        Expect("test_diminishing", above=0),
        Expect("early_gain_of_cloning", above=0),
        Expect("final_gain_of_gradient", above=0),
    ),
    scale="Six problems of four operations modulo 12, solved by a table from which about one random chain in ten is "
    "right; 60 batches of 8 problems with 1, 4, 16 or 64 solutions each, all of them paid for and none free, tested "
    "exactly with 1, 4, 16 or 64 solutions of which an oracle takes a right one. In the test, more samples cannot hurt "
    "under an oracle, and their return cannot but diminish; erring_* is the same under a verifier that errs, where the "
    "limit is not 1. Diminishing is the gain from 1 to 4 over that from 16 to 64. A table does not generalise, so "
    "nothing here is of problems not trained on, and no axis is the size of a model. In first runs cloning was not the "
    "quicker one: Adam steps as far for both. "
    "And the cheap control, one solution of 64 times as many problems, ended higher than 64 of each "
    "(cloning_breadth_gain, gradient_breadth_gain): with six problems that come again and again, search in training is "
    "worth no more than a larger batch.",
)
def search_by_learning(seed: int) -> dict[str, float]:
    """Success by learner, samples in training and samples in the test, exact in the end and early on."""
    task = LabTask(arithmetic_game(seed))
    runs = {(name, n): _learned(name, n, task, seed) for name in LEARNERS for n in SAMPLES}
    grid = {(name, n, tested): _success(run.last, tested) for (name, n), run in runs.items() for tested in SAMPLES}
    erring = {n: fmean(_success(run.last, n, ERRING) for run in runs.values()) for n in SAMPLES}
    trained = {n: fmean(grid[name, n, tested] for name in LEARNERS for tested in SAMPLES) for n in SAMPLES}
    tested = {n: fmean(grid[name, train, n] for name in LEARNERS for train in SAMPLES) for n in SAMPLES}
    early = {name: fmean(runs[name, n].policies[EARLY].success for n in SAMPLES) for name in LEARNERS}
    final = {name: fmean(runs[name, n].last.success for n in SAMPLES) for name in LEARNERS}
    broad = {name: _learned(name, 1, task, seed, PROMPTS * SAMPLES[-1]).last.success for name in LEARNERS}
    return {
        "train_search_gain": trained[64] - trained[1],
        "test_search_gain": tested[64] - tested[1],
        "train_diminishing": (trained[4] - trained[1]) - (trained[64] - trained[16]),
        "test_diminishing": (tested[4] - tested[1]) - (tested[64] - tested[16]),
        "early_gain_of_cloning": early["cloning"] - early["gradient"],
        "final_gain_of_gradient": final["gradient"] - final["cloning"],
        "start": runs["cloning", 1].policies[0].success,
        **{f"{name}_train_{n}_test_{at}": value for (name, n, at), value in grid.items()},
        **{f"erring_test_{n}": value for n, value in erring.items()},
        **{f"{name}_breadth_gain": broad[name] - runs[name, 64].last.success for name in LEARNERS},
        **{f"{name}_early": value for name, value in early.items()},
        **{f"{name}_test_worth_of_training_64": _worth(runs, name) for name in LEARNERS},
    }


def _learned(name: str, samples: int, task: LabTask, seed: int, prompts: int = PROMPTS) -> Run:
    recipe: Recipe = LEARNERS[name]()
    return learn(
        recipe.with_values({"sampler.group_size": samples, "sampler.prompts_per_step": prompts}), task, seed, BATCHES
    )


def _success(policy: Exact, samples: int, accuracy: float = 1.0) -> float:
    """Mean over problems of the best of so many solutions by a verifier of this accuracy; 1 is an oracle."""
    return fmean(best_of_n(right, samples, accuracy) for right in _solved(policy))


def _solved(policy: Exact) -> list[float]:
    """Probability of success by problem."""
    x = policy.tree.leaves
    assert x.success is not None
    right = x.group_of_trajectory.sum(policy.leaf_probability * x.success) / policy.start_probability
    found: list[float] = right.clamp(0, 1).tolist()
    return found


def _worth(runs: dict[tuple[str, int], Run], name: str) -> float:
    """Samples in the test, at most 1024, with which one sample in training is worth 64 there with one in the test."""
    wanted, solved = runs[name, 64].last.success, _solved(runs[name, 1].last)
    reaches = (n for n in range(1, 1024) if fmean(best_of_n(right, n) for right in solved) >= wanted)
    return float(next(reaches, 1024))
