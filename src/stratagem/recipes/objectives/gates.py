"""Recipes whose point is what ratio and advantage become: clipped weights, sequence sums, normalisation, pairs."""

from __future__ import annotations

from stratagem.advantages import GroupStandardized, LeaveOneOut, NormalizedReturn
from stratagem.catalogue import paper
from stratagem.objectives import (
    Clip,
    ClippedWeight,
    GeometricMeanRatio,
    PairwiseClip,
    PairwiseJointClip,
    PolicyGradient,
    ProductRatio,
    SequenceMean,
    SequenceSum,
    TokenMean,
)
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.rewards import KLPenalty
from stratagem.sampling import Rollouts

__all__ = ["dispo", "lite_ppo", "luspo", "p3o"]


@paper(
    "2602.00983",
    title="DISPO: Enhancing Training Efficiency and Stability in Reinforcement Learning for Large Language Model "
    "Mathematical Reasoning",
    family="objectives",
    roles=("gate",),
    year=2026,
    base="cispo",
)
def dispo(
    right_low: float = 0.2, right_high: float = 10.0, wrong_low: float = 1.0, wrong_high: float = 100.0
) -> Recipe:
    """CISPO with bounds of their own for right and wrong answers: ``-mean sg(clip(rho, 1 - low, 1 + high)) A log pi``.

    A token is right where ``A > 0``, and its weight lies in ``[1 - right_low, 1 + right_high]``; wrong where ``A < 0``,
    with the other two bounds. ``{"objective.gate.wrong": "success"}`` goes by the success of its answer instead, which
    is another thing where rewards are not right or wrong. The paper drops groups of equal rewards and shapes overlong
    ones as DAPO does; here those stay as they are in CISPO (``{"sampler": "dynamic_sampling"}`` drops them).

    Formula and defaults are from descriptions of the paper, whose own text was not available beyond the abstract.
    """
    gate = ClippedWeight(low=right_low, high=right_high, wrong_low=wrong_low, wrong_high=wrong_high)
    return Recipe(
        name="dispo",
        base="cispo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=gate, aggregation=TokenMean()),
    )


@paper(
    "2602.05261",
    title="Length-Unbiased Sequence Policy Optimization: Revealing and Controlling Response Length Variation in RLVR",
    family="objectives",
    roles=("aggregation", "gate"),
    year=2026,
    base="gspo",
)
def luspo(low: float = 2e-3, high: float = 2.5e-3) -> Recipe:
    """GSPO with each answer's surrogate times its length: ``-mean_i |y_i| min(s A, clip(s, 1 - low, 1 + high) A)``.

    GSPO's gradient weighs a token by ``1 / |y_i|``; here every token of every answer has the same weight. What makes it
    so is the ratio of whole answers: with a ratio per token and the same aggregation it is PPO's clip under the
    policy-gradient theorem's weights. An answer cut at its limit weighs most; ``Masked(Untruncated())`` takes it out.

    The loss grows with mean length, so compare it with GSPO at equal gradient norm; ``{"objective.aggregation":
    "token_mean"}`` divides by the mean length. The bounds are those of section 5.1, as another trainer quotes them.
    """
    return Recipe(
        name="luspo",
        base="gspo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(ratio=GeometricMeanRatio(), gate=Clip(low, high), aggregation=SequenceSum()),
    )


@paper(
    "2508.08221",
    title="Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning",
    family="objectives",
    roles=("advantage", "aggregation"),
    year=2025,
    base="grpo",
)
def lite_ppo(low: float = 0.2, high: float = 0.2) -> Recipe:
    """PPO's clip without a critic and two tricks: the group's mean with the batch's deviation, and the token mean.

    The paper's other tricks are each one value away: ``advantage.center`` and ``advantage.scale`` (group, batch, none),
    ``objective.gate.high`` (0.28 and 0.32 did best for its larger and smaller model), ``objective.aggregation``
    (``sequence_mean``), ``selections`` (``Masked(Untruncated())``, overlong filtering), ``objective.gate.dual``, and an
    advantage of ``ClippedAdvantage(NormalizedReturn())``, which the authors' code has with limit 2.
    ``stratagem.study.factorial.factorial`` measures what such switches do, alone and together.
    """
    return Recipe(
        name="lite_ppo",
        base="grpo",
        sampler=Rollouts(),
        advantage=NormalizedReturn(center="group", scale="batch"),
        objective=PolicyGradient(gate=Clip(low, high), aggregation=TokenMean()),
    )


@paper(
    "2310.00212",
    title="Pairwise Proximal Policy Optimization: Harnessing Relative Feedback for LLM Alignment",
    family="objectives",
    roles=("advantage", "ratio", "gate"),
    year=2023,
    base="ppo",
)
def p3o(
    clip: float = 0.2,
    joint: bool = False,
    kl_coefficient: float = 0.0,
    group_size: int = 2,
    epochs: int = 2,
    minibatches: int = 2,
) -> Recipe:
    """PPO on the difference of two answers, without a critic: ``-mean sg(rho_2) min(rho_1 d, clip(rho_1) d)``.

    ``d = r_1 - r_2``, and the same with the two exchanged. What is added to all rewards of a prompt changes nothing, as
    comparisons cannot tell it either. Ratios are of whole answers, as the paper's gradient is. ``joint`` clips the
    ratio of the two ratios instead of each (the paper's version 2). More than two answers are compared in all pairs.
    ``kl_coefficient`` takes the KL to the reference from the rewards of answers; the paper has it, and its value was
    not available.

    Both surrogates are reconstructed from the paper's description of its versions; ``clip`` is PPO's. For long answers
    a ratio per token is ``{"objective.ratio": "token_ratio", "objective.aggregation": "sequence_sum"}`` (not with
    ``joint``). Mini-batches are of whole groups.
    """
    return Recipe(
        name="p3o",
        base="ppo",
        sampler=Rollouts(prompts_per_step=32, group_size=group_size),
        rewards=(KLPenalty(kl_coefficient, "k1", unit="trajectory"),) if kl_coefficient else (),
        advantage=LeaveOneOut(),
        objective=PolicyGradient(
            ratio=ProductRatio(),
            gate=PairwiseJointClip(clip) if joint else PairwiseClip(clip, clip),
            aggregation=SequenceMean(),
        ),
        optimization=AdamW(epochs=epochs, minibatches=minibatches, shuffle="groups"),
    )
