"""The claims of learning from demonstrations and from the policy's own trajectories in one stage."""

from __future__ import annotations

from typing import Any

from stratagem.lab import Exact, Outcome, TokenGame, Tree, over
from stratagem.lab.world import LabTask
from stratagem.recipe import Recipe
from stratagem.recipes.objectives.mixing import amft, hpt
from stratagem.sampling import ShownAtRandom
from stratagem.schedules import LinearRamp, Switch
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, learn

BATCHES = 60


def _tiers(needed: int, tokens: tuple[int, ...]) -> list[Outcome] | None:
    """Five tokens, of which so many must stand where they belong."""
    if len(tokens) < 5:
        return None
    return over(float(sum(token == place % 4 for place, token in enumerate(tokens)) >= needed))


TIERS = TokenGame(
    "tiers",
    "An easy question, which a random answer meets one time in three, and a hard one with one answer of 1024.",
    vocabulary=4,
    starts=((0.5, 2), (0.5, 5)),
    act=_tiers,
)


def start_policy(seed: int) -> Exact:
    """Normal logits, 1.5 less for every token of the hard answer, which chance finds once in many thousand rollouts."""
    tree = Tree.enumerate(TIERS)
    logits, leaves = tree.normal_logits(seed), tree.leaves
    assert leaves.success is not None
    answer = leaves.trajectory_of_token.spread(leaves.success & (leaves.group_of_trajectory.labels == 1))
    logits[tree.node[answer], tree.action[answer]] -= 1.5
    return Exact(tree, logits)


@claim(
    "hpt",
    statement="Choosing by a prompt's pass rate between its demonstration and exploration beats supervision alone, "
    "reinforcement learning alone and the one after the other, and keeps pass@k (six sets of mathematics, models of "
    "1.5 to 8 billion parameters).",
    source="arXiv 2509.04419, main results and the analysis of pass@k",
    baseline="hpt with the gate wide open (supervision), shut (reinforcement learning), shut half-way, and a coin that "
    "shows as large a share of prompts",
    rule=(
        Expect("gain_over_sft", above=0),
        Expect("gain_over_rl", above=0),
        Expect("gain_over_sft_then_rl", above=0),
        Expect("gain_over_mixture", above=0),
        Expect("pass_at_16_gain_over_rl", above=0),
    ),
    scale="A table of logits in an enumerated game of two questions of five tokens, judged exactly; 60 batches of two "
    "optimizer steps for every arm, and as many rollouts, used or not. Questions share no weights, so what is learned "
    "of one neither helps nor harms the other, and nothing is said of other tasks than those trained on. The "
    "demonstrator errs in one token of ten. The mixture has HPT's own mean share of demonstrations in every batch. At "
    "first the policy began with normal logits alone and all arms had the entropy bonus of 0.001; reinforcement "
    "learning then found the hard answer by itself with every other seed, so that the question was not hard. Now that "
    "answer begins unlikely and no arm has a bonus, which Adam scales up to whole steps where nothing else has a "
    "gradient and which makes a table uniform; gain_over_rl_with_bonus is against reinforcement learning that has it: "
    "where that is not above 0, exploring at random did as well. The rule is as it was.",
)
def hpt_claim(seed: int) -> dict[str, float]:
    """Exact success after 60 batches of five arms, and pass@16, mean over an easy and a hard question."""
    base = _arm(0.0)
    ours = _learned(base, seed)
    share = ours.mean_metric("groups/demonstrated")
    mixture = base.replace(selections=(ShownAtRandom(share),))
    shut = Switch("selections.by_pass_rate.gate", -1.0, BATCHES // 2)
    arms = {
        "sft": _arm(1.0),
        "rl": _arm(-1.0),
        "sft_then_rl": _arm(1.0).replace(schedules=(shut,)),
        "mixture": mixture,
        "gate_of_2": _arm(2 / 8),
        "rl_with_bonus": hpt(gate=-1.0, length=5),
    }
    runs = {name: _learned(recipe, seed) for name, recipe in arms.items()}
    return {
        **{f"gain_over_{name}": ours.last.success - run.last.success for name, run in runs.items()},
        "pass_at_16_gain_over_rl": _pass_at(ours.last, 16) - _pass_at(runs["rl"].last, 16),
        "pass_at_16_gain_over_sft": _pass_at(ours.last, 16) - _pass_at(runs["sft"].last, 16),
        "success": ours.last.success,
        "share_shown": share,
    }


def _arm(gate: float) -> Recipe:
    return hpt(gate=gate, length=5, entropy=0.0)


@claim(
    "amft",
    statement="A mixture of imitation and exploration whose weight is learned by a meta-gradient of performance beats "
    "every fixed mixture (mathematics in distribution, mean: 63.3, LUFFY 55.4, ReLIFT 59.5).",
    source="arXiv 2508.06944, abstract and main results; numbers from summaries of them",
    baseline="the best of the fixed weights 0.2, 0.5 and 0.8, and the meta-gradient with the sign of the released code",
    rule=(Expect("gain_over_best_fixed", above=0), Expect("gain_over_released", above=0)),
    scale="The game and the first policy of hpt's claim, judged exactly; 100 batches for every arm, the first 10 "
    "supervised. The demonstrator errs in one token of ten. The meta-gradient compares cosines with the gradient of "
    "the return of 64 fresh rollouts, which no fixed weight needs and which are not counted, after every second batch, "
    "at a rate of 0.1: with the published rates the weight would stay where it begins. There are no start states to "
    "hold out. likelihood_* are with the likelihood of fresh demonstrations as the measure, as in the released code; "
    "*_weight is the weight at the end, success_at_* what fixed weights reach. Controls that learn nothing: "
    "gain_over_decay is against a straight line from 1 to 0.05, gain_over_least against 0.05 from the start; where "
    "they are not above 0, a schedule or a lower weight explains the gain.",
)
def amft_claim(seed: int) -> dict[str, float]:
    """Exact success after 100 batches of fixed and of learned weights, mean over an easy and a hard question."""
    fixed = {mu: _adapted(seed, initial=mu, meta_rate=0.0, entropy_rate=0.0).last.success for mu in (0.2, 0.5, 0.8)}
    best = max(fixed.values())
    # Before its beginning the line is at 1, which is the supervised start of all arms.
    line = LinearRamp("objective.weight", 1.0, 0.05, 90, begin=10)
    ours, released = (_adapted(seed, validation="return", sign=sign) for sign in ("ascent", "released"))
    by_likelihood, reversed_ = (_adapted(seed, sign=sign) for sign in ("ascent", "released"))
    return {
        "gain_over_best_fixed": ours.last.success - best,
        "gain_over_released": ours.last.success - released.last.success,
        "gain_over_decay": ours.last.success - _adapted(seed, line=line).last.success,
        "gain_over_least": ours.last.success
        - _adapted(seed, initial=0.05, meta_rate=0.0, entropy_rate=0.0).last.success,
        "likelihood_gain_over_best_fixed": by_likelihood.last.success - best,
        "likelihood_gain_over_released": by_likelihood.last.success - reversed_.last.success,
        "weight": _weight(ours),
        "released_weight": _weight(released),
        "likelihood_weight": _weight(by_likelihood),
        **{f"success_at_{mu}": success for mu, success in fixed.items()},
    }


def _adapted(seed: int, meta_rate: float = 0.1, line: LinearRamp | None = None, **arguments: Any) -> Run:
    """A run of AMFT, or with a weight that falls in a line instead."""
    recipe = amft(every=2, warm_up=10, normalized=True, meta_rate=meta_rate, **arguments)
    if line is not None:
        recipe = recipe.replace(schedules=(line,))
    return learn(recipe, LabTask(TIERS), seed, 100, start_policy(seed))


def _weight(run: Run) -> float:
    return run.metrics[-1]["knob/objective.weight"]


def _learned(recipe: Recipe, seed: int) -> Run:
    return learn(recipe, LabTask(TIERS), seed, BATCHES, start_policy(seed))


def _pass_at(policy: Exact, k: int) -> float:
    """Probability that one of ``k`` answers is right, mean over the equally likely questions."""
    leaves = policy.tree.leaves
    assert leaves.success is not None
    right = leaves.group_of_trajectory.sum(policy.leaf_probability * leaves.success) / policy.start_probability
    return float((1 - (1 - right) ** k).mean())
