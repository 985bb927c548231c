"""The claims of techniques for problems that are never solved: led part of the way, or sampled again in another way."""

from __future__ import annotations

from statistics import fmean

from stratagem.lab.game import Outcome, TokenGame
from stratagem.lab.world import LabTask
from stratagem.objectives import Unclipped
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.recipes.reasoning.guided import lope
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, expected_return, learn

# ---- lope -----------------------------------------------------------------------------------------------------------

PROMPTS, LENGTH, TOKENS = 12, 4, 4
"""Questions, tokens of an answer, and tokens to choose from: one answer of 256 is right."""

BATCHES, TABLES, SPREAD, MIXTURE = 40, 2, 2.0, 0.1


def answers_game(seed: int) -> TokenGame:
    """Questions of which one answer is right, drawn at random."""
    right = numpy_generator(seed, "answers").integers(TOKENS, size=(PROMPTS, LENGTH)).tolist()

    def act(prompt: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
        if len(tokens) < LENGTH:
            return None
        solved = list(tokens) == right[prompt]
        return [Outcome(reward=float(solved), success=solved)]

    starts = tuple((1 / PROMPTS, prompt) for prompt in range(PROMPTS))
    return TokenGame("answers", "Find the one right answer.", TOKENS, starts, act)


@claim(
    "lope",
    statement="Where a whole group fails, sampling again after nonsense solves more questions than sampling again, and "
    "what is found teaches: five math sets, Qwen3-1.7B 39.82 for 38.16 (GRPO 37.03), 4B 53.99 for 48.95 (49.37), "
    "Qwen2.5-Math-7B 53.88 for 47.52 (47.68).",
    source="arXiv 2605.05566, numbers as its released description has them",
    baseline="the same recipe sampling again without perturbation; grpo without resampling, with as many trajectories "
    "as a failed group then has, and at twice the learning rate",
    rule=(Expect("rescued_gain", above=0), Expect("return_gain", above=0)),
    scale="A table has no reason to heed nonsense, so the perturbed policy is the policy mixed with a tenth of a "
    "uniform one, token by token, and that it finds more where the policy is sure and wrong is by construction "
    "(rescued_gain). What is tested is whether that teaches the clean policy, through the regrouping, the ratio and "
    "its shaping (return_gain). Twelve questions with one right answer of 256 each, 40 batches of 8 groups, two tables "
    "a seed, success exact. Whether words move a language model like this needs one of a billion parameters.",
)
def lope_resampling(seed: int) -> dict[str, float]:
    """Exact success while learning questions that are hardly ever solved, and how many failed groups are rescued."""
    ours = lope().with_values({"sampler.mixture": MIXTURE})
    clean = ours.with_values({"sampler.mixture": 0.0})
    arms = {
        "ours": ours,
        "clean": clean,
        "unshaped": ours.with_values({"objective.gate.resampled": Unclipped()}),
        "clean_unshaped": clean.with_values({"objective.gate.resampled": Unclipped()}),
        "clipped": ours.with_values({"objective.gate.resampled": "clip"}),
        "grpo": grpo(),
        "wide": grpo().with_values({"sampler.group_size": 32}),
        "fast": grpo(),
    }
    runs = {name: _learned(arm, seed, 0.1 if name == "fast" else 0.05) for name, arm in arms.items()}
    earned = {name: fmean(run.mean(expected_return) for run in some) for name, some in runs.items()}
    last = {name: fmean(run.last.success for run in some) for name, some in runs.items()}
    return {
        "rescued_gain": _rescued(runs["ours"]) - _rescued(runs["clean"]),
        "return_gain": earned["ours"] - earned["clean"],
        "final_gain": last["ours"] - last["clean"],
        "shaping_gain": earned["ours"] - earned["unshaped"],
        "rescued": _rescued(runs["ours"]),
        "clean_rescued": _rescued(runs["clean"]),
        **{f"{name}_return": value for name, value in earned.items()},
    }


def _learned(recipe: Recipe, seed: int, rate: float) -> list[Run]:
    seeds = [derive(seed, "table", n) for n in range(TABLES)]
    return [learn(recipe, LabTask(answers_game(n), spread=SPREAD), n, BATCHES, learning_rate=rate) for n in seeds]


def _rescued(runs: list[Run]) -> float:
    """Share of failed groups in which sampling again found a success, over the first quarter of the batches."""
    rows = [row for run in runs for row in run.metrics[: BATCHES // 4]]
    return sum(row["groups/rescued"] for row in rows) / max(sum(row["groups/failed"] for row in rows), 1.0)
