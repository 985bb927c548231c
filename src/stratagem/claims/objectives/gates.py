"""The claims of DISPO, LUSPO, Lite PPO and P3O, from training in the lab, where every policy is judged exactly."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from stratagem.claims.baselines import FOUR_UPDATES, IN_THE_LAB, RIGHT_OR_WRONG, SIXTEEN_UPDATES
from stratagem.lab import Exact, Outcome, TokenGame, find_game, over
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.recipes.objectives import gates
from stratagem.seeding import derive, numpy_generator
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, Runs, entropy, expected_return, learn, learn_all
from stratagem.study.factorial import Design, in_the_lab
from stratagem.study.statistics import first_reach

DROP_EQUAL_GROUPS = {"sampler": "dynamic_sampling"}
"""As DAPO samples, and DISPO's experiments do."""


@claim(
    "dispo",
    statement="With bounds of their own for right and wrong answers clipped weights learn more than CISPO's and than "
    "DAPO's trust region (AIME 24: 61.0, 55.4 and 50.2); weights of right answers above 1 raise the entropy, those "
    "below 1 lower it.",
    source="arXiv 2602.00983, abstract",
    baseline="cispo and dapo; for the entropy dispo with the bound at 1",
    rule=(
        Expect("gain_over_cispo", above=0),
        Expect("gain_over_dapo", above=0),
        Expect("entropy_by_weights_above_1", above=0),
        Expect("entropy_by_weights_below_1", below=0),
    ),
    scale=IN_THE_LAB + "All three drop groups of equal rewards. Sixteen updates of a table move a ratio by a factor of "
    "two or three, never to bounds of 5, 11 or 101, so that DISPO differs from CISPO only by the lower bound of right "
    "answers; four times the learning rate, tried on other seeds, did not set the two apart either, and left the gain "
    "over DAPO. That gain is CISPO's as well. Entropies are at equal steps, where who learns faster is surer. The "
    "collapse that tight bounds on wrong answers bring (repetition, vanishing length) has no counterpart in games of "
    "at most eight tokens; gain_by_free_wrong_high and _low are what a weight held at 1 from that side costs.",
)
def dispo(seed: int) -> dict[str, float]:
    """Mean return and entropy over 10 batches of 16 updates each, in four games."""

    def trained(recipe: Recipe) -> Runs:
        return learn_all(recipe.with_values({**DROP_EQUAL_GROUPS, **SIXTEEN_UPDATES}), RIGHT_OR_WRONG, seed, 10)

    ours, cispo, dapo = [trained(recipe) for recipe in (gates.dispo(), baselines.cispo(), baselines.dapo())]
    never_above, never_below, free_below = [
        trained(gates.dispo(**bound)) for bound in ({"right_high": 0.0}, {"right_low": 0.0}, {"right_low": 1.0})
    ]
    tight = [trained(gates.dispo(**bound)) for bound in ({"wrong_high": 0.0}, {"wrong_low": 0.0})]
    return {
        "gain_over_cispo": ours.mean(expected_return) - cispo.mean(expected_return),
        "gain_over_dapo": ours.mean(expected_return) - dapo.mean(expected_return),
        "entropy_by_weights_above_1": ours.mean(entropy) - never_above.mean(entropy),
        "entropy_by_weights_below_1": free_below.mean(entropy) - never_below.mean(entropy),
        "gain_by_free_wrong_high": ours.mean(expected_return) - tight[0].mean(expected_return),
        "gain_by_free_wrong_low": ours.mean(expected_return) - tight[1].mean(expected_return),
        "mean_return": ours.mean(expected_return),
    }


# ---- length ---------------------------------------------------------------------------------------------------------


def _think(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Token 1 thinks on, token 0 answers, and after five thoughts it is answered anyway."""
    if tokens[-1] == 1 and len(tokens) < 5:
        return None
    right = 0.4 + 0.1 * sum(tokens)
    return [Outcome(None, right, 1.0, True), Outcome(None, 1 - right)]


THINKING = TokenGame(
    "thinking",
    "Up to five thoughts, then an answer: right with probability 0.4, and 0.1 more for every thought.",
    2,
    ((1.0, "start"),),
    _think,
)
"""Where thinking longer helps and is not required."""


@claim(
    "luspo",
    statement="Since GSPO weighs a token the less the longer its answer, answers stay shorter with it than with LUSPO, "
    "and fewer are right (2611 and 3940 tokens on average; Qwen2.5-7B on AIME 24 2.9 and on MATH500 7.4 points less).",
    source="arXiv 2602.05261, the analysis of length and the tables of results",
    baseline="gspo",
    rule=(Expect("length_gain", above=0), Expect("mean_return_gain", above=0)),
    scale=IN_THE_LAB + "One game in which every thought makes an answer more often right, one in which right answers "
    "may be short or long. LUSPO's clip range is seven times GSPO's, and in either little but the first of a batch's "
    "four updates passes unclipped; gains at equal_clip are over GSPO with LUSPO's range. Adam makes the scale of the "
    "loss, larger by the mean length, irrelevant. GRPO with the mean over tokens, which weighs tokens as LUSPO does "
    "and clips them one by one, is the control (over_token_mean): on the seeds of development its answers were longer "
    "and more often right than LUSPO's, so what is gained over GSPO is no merit of sequence ratios. There answers grew "
    "with GSPO, too (gspo_length_change).",
)
def luspo(seed: int) -> dict[str, float]:
    """Tokens of an answer and return, means over 40 batches of 4 updates and 4 tables in each of two games."""

    def trained(recipe: Recipe) -> Runs:
        games = (THINKING, find_game("length"))
        return _learn_in(recipe.with_values(FOUR_UPDATES), games, seed, batches=40, tables=4)

    token_mean = baselines.grpo().with_values({"objective.aggregation": "token_mean"})
    ours, theirs, equal_clip, by_token = [
        trained(recipe) for recipe in (gates.luspo(), baselines.gspo(), baselines.gspo(2e-3, 2.5e-3), token_mean)
    ]
    return {
        "length_gain": ours.mean(_length) - theirs.mean(_length),
        "mean_return_gain": ours.mean(expected_return) - theirs.mean(expected_return),
        "length_gain_equal_clip": ours.mean(_length) - equal_clip.mean(_length),
        "mean_return_gain_equal_clip": ours.mean(expected_return) - equal_clip.mean(expected_return),
        "length_gain_over_token_mean": ours.mean(_length) - by_token.mean(_length),
        "mean_return_gain_over_token_mean": ours.mean(expected_return) - by_token.mean(expected_return),
        "gspo_length_change": fmean(run.last.length - run.policies[0].length for run in theirs.runs),
        "length": ours.mean(_length),
    }


# ---- two tricks -----------------------------------------------------------------------------------------------------

TRICKS = {
    "batch_deviation": ({"advantage.scale": "group"}, {"advantage.scale": "batch"}),
    "token_mean": ({"objective.aggregation": "sequence_mean"}, {"objective.aggregation": "token_mean"}),
    "clip_higher": ({"objective.gate.high": 0.2}, {"objective.gate.high": 0.28}),
}
"""Of each the level that is GRPO's, and the other. Lite PPO has the first two, DAPO the last two."""


@claim(
    "lite_ppo",
    statement="PPO's clip with two tricks alone, the group's mean with the batch's deviation and the mean over tokens, "
    "learns more than GRPO and than DAPO with all of its own (six mathematical benchmarks, Qwen3-4B and 8B base).",
    source="arXiv 2508.08221, the section on Lite PPO",
    baseline="grpo and dapo",
    rule=(Expect("gain_over_grpo", above=0), Expect("gain_over_dapo", above=0)),
    scale=IN_THE_LAB + "DAPO's dynamic sampling draws groups again whose rewards are equal, so it learns from more "
    "answers at equal steps; gain_over_dapo_without_it is over DAPO's other tricks. effect_* are main effects and "
    "interactions on the mean return of all eight combinations of three tricks. The paper's base and aligned models, "
    "easy and hard data and limits of length have no counterpart.",
)
def lite_ppo(seed: int) -> dict[str, float]:
    """Mean return over 30 batches of 4 updates in four games: of eight combinations of tricks, and of DAPO."""
    measure = in_the_lab(gates.lite_ppo().with_values(FOUR_UPDATES), RIGHT_OR_WRONG, 30)
    design = Design(tuple(TRICKS))
    arms = [tuple(row) for row in (design.signs > 0).tolist()]
    returns = {
        arm: measure({name: TRICKS[name][on] for name, on in zip(TRICKS, arm, strict=True)}, seed) for arm in arms
    }
    dapo = learn_all(baselines.dapo().with_values(FOUR_UPDATES), RIGHT_OR_WRONG, seed, 30).mean(expected_return)
    lite, grpo = returns[True, True, False], returns[False, False, False]
    effects = design.effects(np.array([returns[arm] for arm in arms]))
    return {
        "gain_over_grpo": lite - grpo,
        "gain_over_dapo": lite - dapo,
        "gain_over_dapo_without_it": lite - returns[False, True, True],
        "mean_return": lite,
        **{f"effect_{'_x_'.join(term)}": float(effect) for term, effect in effects.items()},
    }


# ---- pairs ----------------------------------------------------------------------------------------------------------


def _shifted(seed: int, scale: float) -> TokenGame:
    """The game of unequal prompts, with all rewards of a prompt shifted by a normal number of its own."""
    plain = find_game("prompts")
    shift = dict(zip((1, 2, 3), (scale * numpy_generator(seed, "shift").standard_normal(3)).tolist(), strict=True))

    def act(needed: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
        outcomes = plain.act(needed, tokens)
        return None if outcomes is None else over(outcomes[0].reward + shift[needed], outcomes[0].success)

    return TokenGame(f"{plain.name}_{seed}_{scale:g}", plain.description, plain.vocabulary, plain.starts, act)


@claim(
    "p3o",
    statement="What a prompt's answers all get added to their rewards changes nothing for P3O, and PPO learns worse "
    "with it; without it, too, P3O reaches more reward at equal KL than PPO (TL;DR and HH, 6B).",
    source="arXiv 2310.00212, the theorem of invariance and the figures of reward over KL",
    baseline="ppo with a learned value",
    rule=(
        Expect("shift_effect", above=-0.01, below=0.01),
        Expect("ppo_shift_effect", below=0),
        Expect("gain_at_equal_kl", above=0),
    ),
    scale=IN_THE_LAB + "Three prompts whose values PPO's critic, a table too, must learn; shifts are normal, of "
    "standard deviation 5, and no part of the returns given. Any advantage that compares within a prompt is as "
    "invariant (RLOO: rloo_shift_effect), so that part is no merit of pairs alone. There is no reward model and no KL "
    "in the reward; the KL is to the policy before learning. What is learned per batch (mean_return_gain) is no part "
    "of what the paper says; on the seeds of development PPO was ahead there.",
)
def p3o(seed: int) -> dict[str, float]:
    """Mean return over 20 batches of 64 answers and 4 updates, 4 tables, with and without shifts of the rewards."""

    def trained(recipe: Recipe, scale: float) -> Runs:
        return _learn_in(recipe, [_shifted(seed, scale)], seed, batches=20, tables=4)

    four = {"optimization.epochs": 2, "optimization.minibatches": 2}
    rloo = baselines.rloo().with_values(four)
    ours, shifted = trained(gates.p3o(), 0.0), trained(gates.p3o(), 5.0)
    theirs, theirs_shifted = trained(baselines.ppo(), 0.0), trained(baselines.ppo(), 5.0)
    joint = trained(gates.p3o(joint=True), 0.0)
    return {
        "shift_effect": shifted.mean(_success) - ours.mean(_success),
        "ppo_shift_effect": theirs_shifted.mean(_success) - theirs.mean(_success),
        "gain_at_equal_kl": _gain_at_equal_kl(ours, theirs),
        "mean_return_gain": ours.mean(_success) - theirs.mean(_success),
        "joint_gain_at_equal_kl": _gain_at_equal_kl(joint, theirs),
        "joint_mean_return_gain": joint.mean(_success) - theirs.mean(_success),
        "rloo_shift_effect": trained(rloo, 5.0).mean(_success) - trained(rloo, 0.0).mean(_success),
        "mean_return": ours.mean(_success),
    }


# ---- what is measured -----------------------------------------------------------------------------------------------


def _learn_in(recipe: Recipe, games: Sequence[TokenGame], seed: int, batches: int, tables: int) -> Runs:
    """Train ``tables`` fresh tables in each game."""
    return Runs(
        [learn(recipe, LabTask(game), derive(seed, "table", n), batches) for game in games for n in range(tables)]
    )


def _length(policy: Exact) -> float:
    """Expected tokens of an answer."""
    return policy.length


def _success(policy: Exact) -> float:
    """Probability of a right answer, which is the return without a shift."""
    return policy.success


def _gain_at_equal_kl(ours: Runs, theirs: Runs) -> float:
    """Difference in return where both have gone as far from the start, mean over four distances that both reach."""
    return fmean(_frontier_gain(*pair) for pair in zip(ours.runs, theirs.runs, strict=True))


def _frontier_gain(ours: Run, theirs: Run) -> float:
    curves = [
        (np.array([_divergence(policy, run.policies[0]) for policy in run.policies]), [p.success for p in run.policies])
        for run in (ours, theirs)
    ]
    reach = min(float(kl.max()) for kl, _ in curves)
    levels = [share * reach for share in (0.25, 0.5, 0.75, 1.0)]
    mine, other = [[_at(kl, returns, level) for level in levels] for kl, returns in curves]
    return fmean(mine) - fmean(other)


def _at(kl: np.ndarray, returns: list[float], level: float) -> float:
    """The return when the distance is first at ``level``."""
    batches = np.arange(len(kl), dtype=float)
    return float(np.interp(first_reach(batches, kl, level), batches, returns))


def _divergence(policy: Exact, start: Exact) -> float:
    """KL of an episode to what it was at the start."""
    by_node = (policy.logp.exp() * (policy.logp - start.logp)).sum(-1)
    return float(policy.node_probability @ by_node)
