"""The claims of the baselines, each decided in the lab, where returns and gradients are exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from stratagem.lab import GAMES, Diagnosis, diagnose, find_game
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import (
    TABLES,
    Runs,
    batches_until,
    best_return,
    entropy,
    entropy_gain_at_equal_return,
    expected_return,
    learn,
    learn_all,
    noise_ratio,
    score,
    sine,
    wrong_length,
)

RIGHT_OR_WRONG = ("four_by_four", "prompts", "length", "corridor")
"""Where recipes for verifiable answers are trained: one prompt, unequal prompts, lengths of choice, several turns."""

FIXED_LENGTH = ("four_by_four", "graded", "rare", "prompts")
"""Single answers of always as many tokens, so that equal episodes are equal tokens."""

WHOLE_RANGE = ("four_by_four", "prompts", "length", "corridor", "windy", "stopping")
"""Where estimators are judged: as above, and games of chance and with rewards on the way."""

UNEQUAL = ("prompts", "length")
"""Prompts of unequal difficulty and answers of unequal length: where GRPO's two normalisers weigh unequally."""

UNBIASED = 0.05
"""Relative bias that sampling noise may feign."""

PARALLEL = 0.02
"""Sine of the angle to the exact gradient below which an update counts as parallel to it."""

FOUR_UPDATES = {"optimization.minibatches": 4}
"""Optimizer steps of a batch, as in GSPO's paper."""

SIXTEEN_UPDATES = {"sampler.prompts_per_step": 32, "optimization.minibatches": 16}
"""As in DAPO's and CISPO's papers."""

MANY_TABLES = "A seed stands for several tables, since intervals of first runs with one decided nothing. "
"""Said where it is so; no region of a rule was changed for it."""

IN_THE_LAB = "Tabular policies in enumerated token games of at most eight tokens, judged exactly. "


# ---- supervision ----------------------------------------------------------------------------------------------------


@claim(
    "sft",
    statement="Maximum likelihood on demonstrations ends at the demonstrator: it earns what the demonstrations earn, "
    "their errors included, and no more.",
    source="No paper of its own; the known limit of behaviour cloning",
    baseline="the demonstrator, who errs in one token of ten",
    rule=(Expect("gap_to_demonstrator", above=-0.02, below=0.02), Expect("gap_to_best", above=0.05)),
    scale=IN_THE_LAB + "Demonstrations never run out, so nothing is said of too few of them.",
)
def sft(seed: int) -> dict[str, float]:
    """Exact return after 500 batches of 64 demonstrations, against their mean return and the best possible."""
    demonstrated, learned, best = [], [], []
    for game in ("graded", "rare", "corridor"):
        run = learn(baselines.sft(), LabTask(find_game(game)), seed, 500, learning_rate=0.02)
        demonstrated.append(run.mean_metric("reward"))
        learned.append(run.last.expected_return)
        best.append(best_return(run.last))
    return {
        "gap_to_demonstrator": fmean(learned) - fmean(demonstrated),
        "gap_to_best": fmean(best) - fmean(learned),
        "demonstrator": fmean(demonstrated),
    }


@claim(
    "rejection_sft",
    statement="Fine-tuning a supervised model on its own correct answers makes it better than supervision alone "
    "(LLaMA-7B on GSM8K: 35.9 % supervised, 41.7 % with its own, 49.3 % with several models' answers).",
    source="arXiv 2308.01825, abstract and the results on rejection sampling",
    baseline="sft for as many tokens more, from the same policy",
    rule=(Expect("gain_over_sft", above=0), Expect("gain_over_start", above=0)),
    scale=IN_THE_LAB + "Answers are rejected anew in every batch, where the paper collects them once; and supervision "
    "is limited by the demonstrator's errors, where the paper's is by few demonstrations.",
)
def rejection_sft(seed: int) -> dict[str, float]:
    """Exact returns after 100 supervised batches and 100 more of either kind, 64 answers each."""
    start, further, rejected = [], [], []
    for game in FIXED_LENGTH:
        task = LabTask(find_game(game))
        supervised = learn(baselines.sft(), task, seed, 100).last
        start.append(supervised.expected_return)
        further.append(learn(baselines.sft(), task, seed, 100, supervised).last.expected_return)
        rejected.append(learn(baselines.rejection_sft(), task, seed, 100, supervised).last.expected_return)
    return {
        "gain_over_sft": fmean(rejected) - fmean(further),
        "gain_over_start": fmean(rejected) - fmean(start),
        "sft": fmean(further),
    }


# ---- estimators of the gradient -------------------------------------------------------------------------------------


@claim(
    "reinforce",
    statement="The expected update is the gradient of the expected return, whatever the task and its baseline.",
    source="Williams 1992, theorem 1 (episodic: theorem 2)",
    baseline="the exact gradient",
    rule=(Expect("relative_bias", below=UNBIASED), Expect("convictions", below=0.5)),
    scale=IN_THE_LAB + "What is shown is that no bias above the sampling noise is left.",
)
def reinforce(seed: int) -> dict[str, float]:
    """Largest relative bias over six games, and in how many the lab convicts the recipe of bias at p < 0.001."""
    found = [diagnose(baselines.reinforce(), game, seed=seed) for game in WHOLE_RANGE]
    return {**_bias(found), "scale": fmean(diagnosis.scale.value for diagnosis in found)}


@claim(
    "rloo",
    statement="With the other samples of the same prompt as its baseline REINFORCE stays unbiased, is less noisy than "
    "with a moving average, and learns more from the same samples.",
    source="arXiv 2402.14740, the section on RLOO and the win rates at equal samples (k = 2 and 4)",
    baseline="reinforce",
    rule=(
        Expect("relative_bias", below=UNBIASED),
        Expect("noise_ratio", below=1),
        Expect("mean_return_gain", above=0),
    ),
    scale=IN_THE_LAB
    + MANY_TABLES
    + "Noise and learning are of the game with unequal prompts; with a single prompt a moving average "
    "knows the prompt's mean, too (noise_ratio_one_prompt). Groups of four, as in the paper.",
)
def rloo(seed: int) -> dict[str, float]:
    """Bias over six games; noise and mean return over 60 batches of 64 answers against REINFORCE's."""
    four = {"sampler.prompts_per_step": 16, "sampler.group_size": 4}
    arms = baselines.rloo().with_values(four), baselines.reinforce().with_values(four)
    return {
        **_bias([diagnose(arms[0], game, seed=seed) for game in WHOLE_RANGE]),
        "noise_ratio": noise_ratio(arms, ["prompts"], seed),
        "noise_ratio_one_prompt": noise_ratio(arms, ["four_by_four"], seed),
        **_gain(*[learn_all(arm, ["prompts"], seed, 60, tables=TABLES) for arm in arms]),
    }


@claim(
    "dr_grpo",
    statement="Without the division by length and by the group's deviation the update points along the gradient, which "
    "GRPO's does not; and wrong answers grow longer with GRPO than without the two.",
    source="arXiv 2503.20783, the section on GRPO's biases and figure 1 (right)",
    baseline="grpo",
    rule=(
        Expect("direction", below=PARALLEL),
        Expect("grpo_direction", above=PARALLEL),
        Expect("wrong_length_gap", above=0),
    ),
    scale=IN_THE_LAB + MANY_TABLES + "Wrong answers have one to five tokens here, thousands in the paper.",
)
def dr_grpo(seed: int) -> dict[str, float]:
    """Sine of the angle to the gradient; tokens of a wrong answer, mean over 60 batches and 8 tables."""
    arms = baselines.dr_grpo(), baselines.grpo()
    ours, theirs = [learn_all(arm, ["length"], seed, 60, tables=TABLES).mean(wrong_length) for arm in arms]
    return {
        "direction": sine(arms[0], UNEQUAL, seed),
        "grpo_direction": sine(arms[1], UNEQUAL, seed),
        "wrong_length_gap": theirs - ours,
        "wrong_length": ours,
    }


@claim(
    "reinforce_pp",
    statement="Normalising advantages over the whole batch leaves the update's direction unbiased as batches grow, "
    "which normalising them within a prompt's group does not.",
    source="arXiv 2501.03262, abstract and the section on the bias of prompt-level normalisation",
    baseline="grpo",
    rule=(Expect("direction", below=PARALLEL), Expect("grpo_direction", above=PARALLEL)),
    scale=IN_THE_LAB
    + "Batches of 512 groups; with a trainer's 8 the direction is slightly off (sine 0.02 in `stratagem lab "
    "reinforce_pp --game prompts --batch-groups 8`). A table does not generalise, so the overfitting to few prompts "
    "(GRPO: 95 % on AIME 24 after training on it, 0 % on AIME 25) cannot be shown.",
)
def reinforce_pp(seed: int) -> dict[str, float]:
    """Sine of the angle between expected update and exact gradient."""
    return {
        "direction": sine(baselines.reinforce_pp(), UNEQUAL, seed),
        "grpo_direction": sine(baselines.grpo(), UNEQUAL, seed),
    }


@claim(
    "reinforce_pp_baseline",
    statement="Subtracting the group's mean before normalising over the batch makes the update less noisy where "
    "prompts are of unequal difficulty, and keeps its direction unbiased, unlike GRPO's.",
    source="arXiv 2501.03262, the section on the variant with a baseline",
    baseline="reinforce_pp; grpo for the direction",
    rule=(
        Expect("direction", below=PARALLEL),
        Expect("grpo_direction", above=PARALLEL),
        Expect("noise_ratio", below=1),
    ),
    scale=IN_THE_LAB + MANY_TABLES + "Three prompts, groups of eight, batches of 512 groups. Nothing is said "
    "of agents with tools.",
)
def reinforce_pp_baseline(seed: int) -> dict[str, float]:
    """Sine of the angle to the gradient; noise against REINFORCE++ on unequal prompts."""
    arms = baselines.reinforce_pp_baseline(), baselines.reinforce_pp()
    return {
        "direction": sine(arms[0], UNEQUAL, seed),
        "grpo_direction": sine(baselines.grpo(), UNEQUAL, seed),
        "noise_ratio": noise_ratio(arms, ["prompts"], seed),
    }


# ---- optimization ---------------------------------------------------------------------------------------------------


@claim(
    "ppo",
    statement="The clip makes several epochs on one batch safe: over seven control tasks the normalised score is 0.82 "
    "with it and -0.39 without clipping or penalty.",
    source="arXiv 1707.06347, table 1",
    baseline="ppo without the clip",
    rule=(Expect("score_gain", above=0),),
    scale=IN_THE_LAB
    + "Ten epochs of mini-batches of about 64 tokens, as in the paper, at four times the lab's learning rate. "
    "That rate was set after a first run at the lab's own, where the clip makes no difference "
    "(score_gain_small_steps), had been inconclusive, and seeds run after that did not confirm it. Tables instead of "
    "networks, so an update too far spoils only the states it was made in.",
)
def ppo(seed: int) -> dict[str, float]:
    """Final return over all games, 0 at the start and 1 at the best possible, after 10 batches of 40 updates."""
    clipped = baselines.ppo(epochs=10, minibatches=4)
    unclipped = clipped.with_values({"objective.gate": "unclipped"})

    def final_score(arm: Recipe, learning_rate: float) -> float:
        return fmean(
            score(learn(arm, LabTask(find_game(game)), seed, 10, learning_rate=learning_rate)) for game in GAMES
        )

    ours, theirs = final_score(clipped, 0.2), final_score(unclipped, 0.2)
    return {
        "score_gain": ours - theirs,
        "score": ours,
        "score_gain_small_steps": final_score(clipped, 0.05) - final_score(unclipped, 0.05),
    }


@claim(
    "grpo",
    statement="The group's own mean does a critic's work: it takes noise out of the update; and since wrong answers "
    "are pushed away, too, GRPO learns more than imitating one's own right answers online.",
    source="arXiv 2402.03300, section 4.1 and figure 5",
    baseline="rejection_sft; reinforce for the noise",
    rule=(Expect("mean_return_gain", above=0), Expect("noise_ratio", below=1)),
    scale=IN_THE_LAB + MANY_TABLES + "Both learn from fresh answers of their own, from a random table "
    "instead of a supervised model.",
)
def grpo(seed: int) -> dict[str, float]:
    """Mean return over 60 batches of 64 answers in four games; noise against REINFORCE's on unequal prompts."""
    arms = baselines.grpo(), baselines.rejection_sft()
    return {
        **_gain(*[learn_all(arm, RIGHT_OR_WRONG, seed, 60) for arm in arms]),
        "noise_ratio": noise_ratio((baselines.grpo(), baselines.reinforce()), ["prompts"], seed),
    }


@claim(
    "dapo",
    statement="A higher upper clip keeps entropy up; with dynamic sampling, token mean and overlong shaping the same "
    "number of optimizer steps reaches more (AIME 24: 50 instead of 30 points).",
    source="arXiv 2503.14476, figure 2 (entropy) and table 1",
    baseline="grpo",
    rule=(Expect("entropy_gain", above=0), Expect("mean_return_gain", above=0)),
    scale=IN_THE_LAB
    + "The entropy is that of GRPO with the higher clip alone, as in the paper's figure: entropy_gain at equal "
    "steps, where who learns faster is surer; entropy_gain_equal_return where both first earn nine tenths of "
    "what they end with. No answer is overlong here.",
)
def dapo(seed: int) -> dict[str, float]:
    """Mean entropy and mean return over 20 batches of 16 updates each, in four games."""
    plain = baselines.grpo().with_values(SIXTEEN_UPDATES)
    arms = baselines.dapo().with_values(SIXTEEN_UPDATES), plain, plain.with_values({"objective.gate.high": 0.28})
    ours, theirs, higher = [learn_all(arm, RIGHT_OR_WRONG, seed, 20) for arm in arms]
    return {
        "entropy_gain": higher.mean(entropy) - theirs.mean(entropy),
        **_gain(ours, theirs),
        "entropy_gain_equal_return": entropy_gain_at_equal_return(higher, theirs),
        "grpo_entropy": theirs.mean(entropy),
    }


@claim(
    "gspo",
    statement="One ratio per answer is less noisy than one per token; it clips far more tokens (two orders of "
    "magnitude) and yet learns more from the same batches.",
    source="arXiv 2507.18071, the section on motivation, figures 1 (efficiency) and 2 (clipped tokens)",
    baseline="grpo",
    rule=(Expect("noise_ratio", below=1), Expect("clip_orders", above=1), Expect("mean_return_gain", above=0)),
    scale=IN_THE_LAB
    + "The paper's answers have thousands of tokens and its model experts, whose routing changes with every "
    "update; its clip range of 3e-4 is made for both. With four to eight tokens one update moves the ratio by "
    "percents, so that little but the first update of a batch passes; mean_return_gain_wide_clip is with "
    "GRPO's range. clip_orders, the decimal logarithm of the ratio, counts as shown from one order on; the ratio "
    "itself, above ten, was the first rule, and GRPO clips too little for its mean to be steady. " + MANY_TABLES,
)
def gspo(seed: int) -> dict[str, float]:
    """Noise of the ratios alone (no clip, a drift of 0.5 logits); clipping and returns over 40 batches of 4 updates."""
    arms = baselines.gspo(), baselines.grpo()
    unclipped = [arm.with_values({"objective.gate": "unclipped"}) for arm in arms]
    ours, theirs, wide = [
        learn_all(arm.with_values(FOUR_UPDATES), RIGHT_OR_WRONG, seed, 40) for arm in (*arms, baselines.gspo(0.2, 0.2))
    ]
    return {
        "noise_ratio": noise_ratio(unclipped, RIGHT_OR_WRONG, seed, drift=0.5, tables=4),
        "clip_orders": math.log10(ours.mean_metric("clip_fraction") / max(theirs.mean_metric("clip_fraction"), 1e-5)),
        **_gain(ours, theirs),
        "mean_return_gain_wide_clip": wide.mean(expected_return) - theirs.mean(expected_return),
        "grpo_clip_fraction": theirs.mean_metric("clip_fraction"),
    }


@claim(
    "cispo",
    statement="Clipping the weight instead of the update, so that no token loses its gradient, reaches DAPO's result "
    "in half of its steps when a batch is used for many updates.",
    source="arXiv 2506.13585, figure 2 (AIME 24, Qwen2.5-32B)",
    baseline="dapo",
    rule=(Expect("steps_ratio", below=0.75), Expect("mean_return_gain", above=0)),
    scale=IN_THE_LAB
    + "With DAPO's dynamic sampling, as in the paper. steps_ratio counts as shown when nearer to the paper's "
    "half than to no difference; DAPO ends close to the best possible, and steps_ratio_nine_tenths is until "
    "nine tenths of that. A vocabulary of two to four has hardly a rare token.",
)
def cispo(seed: int) -> dict[str, float]:
    """Batches of 16 updates until DAPO's return after 20 of them, over DAPO's own; mean return over 20 batches."""
    arms = baselines.cispo().with_values({"sampler": "dynamic_sampling"}), baselines.dapo()
    ours, theirs = [learn_all(arm.with_values(SIXTEEN_UPDATES), RIGHT_OR_WRONG, seed, 20) for arm in arms]

    def steps_ratio(share: float) -> float:
        pairs = [
            (run, reference, share * reference.last.expected_return)
            for run, reference in zip(ours.runs, theirs.runs, strict=True)
        ]
        return fmean(batches_until(run, level) / batches_until(reference, level) for run, reference, level in pairs)

    return {"steps_ratio": steps_ratio(1.0), "steps_ratio_nine_tenths": steps_ratio(0.9), **_gain(ours, theirs)}


@claim(
    "decoupled_ppo",
    statement="On stale data the clip around a recent policy, with the behaviour policy only correcting, keeps "
    "learning where the clip around the behaviour policy quickly degrades.",
    source="arXiv 2110.00641, figure 1 (artificial staleness)",
    baseline="grpo with its ratio to the behaviour policy",
    rule=(Expect("mean_return_gain", above=0),),
    scale=IN_THE_LAB + "Batches are four and eight batches of four updates old. GRPO that ignores the staleness "
    "(gain_over_uncorrected) is beside the claim.",
)
def decoupled_ppo(seed: int) -> dict[str, float]:
    """Mean return over 40 batches of 4 updates in four games at two degrees of staleness."""
    plain = baselines.grpo().with_values(FOUR_UPDATES)
    coupled = plain.with_values({"objective.ratio.denominator": "behavior"})
    ours, theirs, uncorrected = [
        fmean(learn_all(arm, RIGHT_OR_WRONG, seed, 40, staleness).mean(expected_return) for staleness in (4, 8))
        for arm in (baselines.decoupled_ppo().with_values(FOUR_UPDATES), coupled, plain)
    ]
    return {"mean_return_gain": ours - theirs, "mean_return": ours, "gain_over_uncorrected": ours - uncorrected}


# ---- what is measured ------------------------------------------------------------------------------------------------


def _gain(ours: Runs, theirs: Runs) -> dict[str, float]:
    return {
        "mean_return_gain": ours.mean(expected_return) - theirs.mean(expected_return),
        "mean_return": ours.mean(expected_return),
        "final_return_gain": ours.final_return - theirs.final_return,
    }


def _bias(found: Sequence[Diagnosis]) -> dict[str, float]:
    return {
        "relative_bias": max(diagnosis.bias.value for diagnosis in found),
        "convictions": float(sum(diagnosis.verdict != "not shown biased" for diagnosis in found)),
    }
