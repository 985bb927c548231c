"""Which of the sampled answers count, and for how much: the most telling ones, or those the policy was unsure of."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import ConfidenceDiscounted, GroupStandardized
from stratagem.catalogue import paper
from stratagem.objectives import TokenMean
from stratagem.parts import Schedule, Selection
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.sampling import DecisiveTokens, MostVariedCredit
from stratagem.schedules import LinearRamp

__all__ = ["d3s", "progrpo_arm"]


@paper(
    "2509.22115",
    title="Learning More with Less: A Dynamic Dual-Level Down-Sampling Framework for Efficient Policy Optimization",
    family="reasoning",
    roles=("selection", "schedule"),
    year=2025,
    base="grpo",
)
def d3s(
    answers: float = 0.25,
    last_answers: float = 0.75,
    tokens: float = 0.2,
    last_tokens: float = 0.6,
    batches: int = 100,
    level: Literal["batch", "group"] = "batch",
) -> Recipe:
    """GRPO on the answers whose advantages vary most, and of these on the tokens with the largest ``|A_t| H_t``.

    The advantages of all answers are computed first and stay as they are
    (:class:`~stratagem.sampling.MostVariedCredit`, :class:`~stratagem.sampling.DecisiveTokens`). Both shares grow
    linearly over the run, ``(1 - p) first + p last``: a strict choice at first, a loose one later, against overfitting
    to what was chosen. The loss is the mean over the tokens that are left; a mean per answer would weigh them by how
    many others of their answer are.

    As many tokens are sampled as without, and all are read once more by the update; what is left out only does not
    move the policy.

    answers, last_answers: share of a batch's answers at first and after ``batches``; 1 and 1: all of them.
    tokens, last_tokens: share of their tokens, likewise. Equal shares are kept as they are, without a schedule: the
    paper's D2S, and with ``tokens = last_tokens = 1`` its D1S. With all four at 1 this is GRPO on the token mean.
    batches: of the run.  level: answers of the whole ``batch`` are compared (the paper's "Cross"), or each ``group``'s.

    The paper's constants of the schedule were not available, and neither was its denominator: the four shares and the
    mean over kept tokens are reconstructions. The paper says that less than a fifth of the tokens are enough.
    """
    base = grpo().with_values({"objective.aggregation": TokenMean()})
    selections: tuple[Selection, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    if min(answers, last_answers) < 1:
        selections += (MostVariedCredit(GroupStandardized(), answers, level),)
    if min(tokens, last_tokens) < 1:
        selections += (DecisiveTokens(GroupStandardized(), tokens),)
    if answers != last_answers:
        schedules += (LinearRamp("selections.most_varied_credit.share", answers, last_answers, batches),)
    if tokens != last_tokens:
        schedules += (LinearRamp("selections.decisive_tokens.share", tokens, last_tokens, batches),)
    return base.replace(name="d3s", base="grpo", selections=selections, schedules=schedules)


@paper(
    "2602.05281",
    title="Back to Basics: Revisiting Exploration in Reinforcement Learning for LLM Reasoning via Generative "
    "Probabilities",
    family="reasoning",
    roles=("advantage",),
    year=2026,
    base="grpo",
)
def progrpo_arm(
    strength: float = 0.5,
    share: float = 0.2,
    prompt: float | Literal["auto", "policy"] | None = "auto",
    rewarded_only: bool = False,
) -> Recipe:
    """GRPO with ``A_i + strength (c - c_i)``: an answer gains less the surer the policy was of it.

    ``c_i`` is the geometric mean probability of the fifth of its tokens that were least likely, ``c`` the same of the
    prompt (:class:`~stratagem.advantages.ConfidenceDiscounted`). Groups that were all right still train, towards
    their less likely answers; groups that were all wrong do not.

    strength: 0 is GRPO. The paper's value was not available; 0.5 is ours.
    share: of an answer's tokens, the least likely ones.
    prompt: where the confidence in the prompt is from. ``auto``: as reported the policy, where it reads prompts as a
    language model does, else the group's mean confidence. ``policy``: from it alone. None: the group's mean. A number:
    that.
    rewarded_only: leave wrong answers as they are; the reported formula pays unlikely ones of these, too.
    """
    return grpo().replace(
        name="progrpo_arm",
        base="grpo",
        advantage=ConfidenceDiscounted(GroupStandardized(), strength, share, prompt, rewarded_only),
    )
