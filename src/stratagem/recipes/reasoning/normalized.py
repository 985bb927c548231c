"""Advantages of binary rewards, scaled prompt by prompt: by how often it is solved, and how far its answers agree."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import BetaNormalized, GroupCentered, PerReward, SemanticEntropyScaled
from stratagem.catalogue import paper
from stratagem.objectives import Clip, PolicyGradient, SequenceSum
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import dr_grpo
from stratagem.sampling import Rollouts

__all__ = ["bnpo", "seed_grpo"]


@paper(
    "2506.02864",
    title="BNPO: Beta Normalization Policy Optimization",
    family="reasoning",
    roles=("advantage",),
    year=2025,
    base="grpo",
)
def bnpo(
    reward_range: tuple[float, float] = (0.0, 1.0),
    shape: tuple[float, float] | None = None,
    low: float = 0.2,
    high: float = 0.28,
    dual: float | None = 10.0,
    prompts: int = 32,
    group_size: int = 16,
) -> Recipe:
    """GRPO with a Beta density in place of the deviation: ``A_i = (R_i - p) / f(p; 1 + a/3, 1 + b/3)``.

    ``p`` is the group's success rate, and Beta(a, b) is fitted to the rates of every batch
    (:class:`~stratagem.advantages.BetaNormalized`). A reward of several columns is credited column by column, and the
    credits are averaged by the columns' weights, absolute values adding up to 1; the paper's average is that of equal
    weights.

    The advantage is the paper's. The loss is that of the released code, whose settings are the defaults here: mean over
    trajectories of token sums, no KL. The advantage goes with any other loss.

    reward_range: least and greatest value of every reward column. A return outside is refused.
    shape: ``(alpha, beta)`` instead of fitted ones; (1, 1) is plain group centering, (1.5, 1.5) GRPO's advantage times
    ``pi / 8``.  low, high, dual: of the clip.
    prompts, group_size: of a batch; the density is fitted to ``prompts`` numbers, each a share of ``group_size``.
    """
    return Recipe(
        name="bnpo",
        base="grpo",
        sampler=Rollouts(prompts_per_step=prompts, group_size=group_size),
        advantage=PerReward(BetaNormalized(*reward_range, shape=shape), mean=True),
        objective=PolicyGradient(gate=Clip(low, high, dual), aggregation=SequenceSum()),
    )


@paper(
    "2505.12346",
    title="SEED-GRPO: Semantic Entropy Enhanced GRPO for Uncertainty-Aware Policy Optimization",
    family="reasoning",
    roles=("advantage",),
    year=2025,
    base="dr_grpo",
)
def seed_grpo(
    form: Literal["reciprocal", "linear", "exponential", "focal"] = "reciprocal",
    strength: float = 0.0417,
    estimator: Literal["counts", "likelihood"] = "counts",
    unreadable: Literal["shared", "apart"] = "shared",
    length: int = 1024,
) -> Recipe:
    """Dr. GRPO with smaller steps where answers disagree: ``A_i = (R_i - mean_g R) / (1 + 0.0417 SE / log G)``.

    ``SE`` is the semantic entropy of the group's answers (:class:`~stratagem.advantages.SemanticEntropyScaled`). The
    factor of the default lies in [0.96, 1]: it changes no step by more than 4 %. Its form and strength are reported of
    an implementation; of the paper's text a strength of 0.02 is reported, without the form. Neither was available, so
    forms are reconstructions.

    Answers are the same when they are equal; ``{"sampler.similar_answers": 0.7}`` takes free text that is worded alike
    for one answer.

    strength: 0 is Dr. GRPO.  length: of the aggregation, in tokens, as of ``dr_grpo``.
    """
    return dr_grpo(length).replace(
        name="seed_grpo",
        base="dr_grpo",
        advantage=SemanticEntropyScaled(GroupCentered(), form, strength, estimator, unreadable),
    )
