"""The claims of merging, on tables of logits in a game whose answers may be short or long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean

from stratagem import recipes
from stratagem.lab import Exact
from stratagem.lab.game import Outcome, TokenGame, over
from stratagem.lab.world import LabTask
from stratagem.merging import TwoStageMerge
from stratagem.seeding import derive
from stratagem.study.claims import Expect, claim
from stratagem.study.experiments import Run, expected_return, learn
from stratagem.study.stability import length_collapse, reward_dip

LONGEST = 8
"""Tokens of an answer at most, its end included."""

TABLES = 2
"""Bases a seed stands for."""

BATCHES = 60
"""Of each fine-tuning, and of reinforcement learning."""


def _game(name: str, worth: Callable[[tuple[int, ...]], float]) -> TokenGame:
    """Bits ended by token 2, within eight tokens; what the bits are worth is all that games differ in."""

    def act(state: str, tokens: tuple[int, ...]) -> list[Outcome] | None:
        if tokens[-1] == 2:
            return over(worth(tokens[:-1]))
        return over(0.0, truncated=True) if len(tokens) == LONGEST else None

    return TokenGame(name, name, 3, ((1.0, "start"),), act)


def _right(bits: tuple[int, ...]) -> bool:
    return sum(bits) % 2 == 1


def _in_form(bits: tuple[int, ...]) -> bool:
    return bits[-1:] == (1,)


PRETRAINING = _game("any answer that ends", lambda bits: 1.0)
INSTRUCTION = _game("short, right and in form", lambda bits: float(len(bits) <= 2 and _right(bits) and _in_form(bits)))
DISTILLATION = _game("long and right", lambda bits: float(len(bits) >= 5 and _right(bits)))
REWARD = _game("right, and half as much for the form", lambda bits: _right(bits) + 0.5 * _in_form(bits))


@claim(
    "bai",
    statement="Reinforcement learning from a model distilled on long reasoning collapses in length and dips in "
    "reward; from its merge with the instructed and then the pretrained model length does not collapse but grows, and "
    "the dip is less.",
    source="arXiv 2509.00309, abstract; no figures were available",
    baseline="grpo from the distilled model",
    rule=(
        Expect("distilled_length_share", below=0.5),
        Expect("length_share", above=0.5),
        Expect("dip_gain", above=0),
        Expect("length_growth", above=1),
    ),
    scale="Tables of logits in a game of answers of at most eight tokens, each fine-tuned on 60 batches of "
    "demonstrations and then trained by reinforcement for 60. A merge of tables is a merge of models, but an easy "
    "one: the likelihood of a table is log-concave in its logits, so no barrier lies between two of them. Reward is "
    "for an odd number of ones, and half as much for ending the way the instructed model does, at any length. The "
    "premise did not reproduce: from the distilled table answers shrink slowly, over the whole run instead of its "
    "first fifth, and the reward never dips. So this says nothing of the remedy; and the merged tables, too, end "
    "short (length_growth), for nothing in this reward needs length. The instructed table alone does best "
    "(instructed_mean_return).",
)
def bai(seed: int) -> dict[str, float]:
    """Least length in the first fifth of 60 batches over the first length, depth of the reward's dip, and last length
    over first, by the exact policy of every batch; means over two bases, for the merge and for other starts."""
    found = [_measured(derive(seed, "base", number)) for number in range(TABLES)]
    return {quantity: fmean(row[quantity] for row in found) for quantity in found[0]}


def _measured(seed: int) -> dict[str, float]:
    pretrained = _tuned(PRETRAINING, seed, None)
    distilled, instructed = (_tuned(game, seed, pretrained) for game in (DISTILLATION, INSTRUCTION))
    models = [{"logits": policy.logits} for policy in (distilled, instructed, pretrained)]

    def merged(a: float, b: float) -> Exact:
        return Exact(pretrained.tree, TwoStageMerge(a, b)(*models)["logits"])

    starts = {
        "": merged(0.5, 0.5),
        "distilled_": distilled,
        "instructed_": instructed,
        "one_stage_": merged(0.5, 1),
        "mostly_distilled_": merged(0.7, 0.7),
    }
    runs = {prefix: learn(recipes.grpo(), LabTask(REWARD), seed, BATCHES, start) for prefix, start in starts.items()}
    figures = {f"{prefix}{name}": value for prefix, run in runs.items() for name, value in _figures(run).items()}
    return {
        "dip_gain": figures["distilled_dip"] - figures["dip"],
        "return_gain": figures["mean_return"] - figures["distilled_mean_return"],
        **figures,
    }


def _tuned(game: TokenGame, seed: int, start: Exact | None) -> Exact:
    recipe = recipes.sft().with_values({"sampler.prompts_per_step": 64})
    return learn(recipe, LabTask(game), seed, BATCHES, start).last


def _figures(run: Run) -> Mapping[str, float]:
    lengths = [policy.length for policy in run.policies]
    return {
        "length_share": length_collapse(lengths),
        "dip": reward_dip([policy.expected_return for policy in run.policies]).depth,
        "length_growth": lengths[-1] / lengths[0],
        "first_length": lengths[0],
        "first_return": run.policies[0].expected_return,
        "mean_return": run.mean(expected_return),
    }
