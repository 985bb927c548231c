"""The baselines every other technique is compared with, one short function each."""

from __future__ import annotations

import math

from stratagem.advantages import (
    GAE,
    BatchWhitened,
    Constant,
    GroupCentered,
    GroupStandardized,
    LeaveOneOut,
    MovingAverageBaseline,
    RewardToGo,
)
from stratagem.catalogue import paper
from stratagem.objectives import (
    KL,
    Clip,
    ClippedWeight,
    EntropyBonus,
    FixedLength,
    GeometricMeanRatio,
    LogLikelihood,
    PolicyGradient,
    SequenceMean,
    SequenceSum,
    TokenMean,
    TruncatedImportance,
    ValueLoss,
)
from stratagem.optimizers import AdamW
from stratagem.parts import Regularizer
from stratagem.recipe import Recipe
from stratagem.rewards import KLPenalty, OverlongPenalty
from stratagem.sampling import AboveReturn, Demonstrations, DynamicSampling, Rollouts

__all__ = [
    "cispo",
    "dapo",
    "decoupled_ppo",
    "dr_grpo",
    "grpo",
    "gspo",
    "ppo",
    "reinforce",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "rejection_sft",
    "rloo",
    "sft",
]


@paper(
    None,
    title="Supervised fine-tuning on demonstrations",
    family="baselines",
    roles=("sampler", "advantage"),
    year=2020,
)
def sft(learning_rate: float = 1e-3) -> Recipe:
    """Maximum likelihood on the task's own solutions: ``-mean_t log pi(a_t)``."""
    return Recipe(
        name="sft",
        sampler=Demonstrations(),
        advantage=Constant(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean()),
        optimization=AdamW(learning_rate=learning_rate),
    )


@paper(
    "2308.01825",
    title="Scaling Relationship on Learning Mathematical Reasoning with Large Language Models",
    family="baselines",
    roles=("selection",),
    year=2023,
    base="sft",
)
def rejection_sft(threshold: float = 1.0) -> Recipe:
    """Rejection-sampling fine-tuning: maximum likelihood on own trajectories whose return is at least ``threshold``."""
    return Recipe(
        name="rejection_sft",
        base="sft",
        sampler=Rollouts(),
        selections=(AboveReturn(threshold),),
        advantage=Constant(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=TokenMean()),
    )


@paper(
    None,
    title="Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    family="baselines",
    roles=("advantage", "objective"),
    year=1992,
)
def reinforce(baseline_decay: float = 0.9) -> Recipe:
    """REINFORCE with a moving-average baseline: ``-mean_i (R_i - b) sum_t log pi(a_it)``."""
    return Recipe(
        name="reinforce",
        sampler=Rollouts(),
        advantage=MovingAverageBaseline(baseline_decay),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
    )


@paper(
    "2402.14740",
    title="Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    family="baselines",
    roles=("advantage",),
    year=2024,
    base="reinforce",
)
def rloo() -> Recipe:
    """REINFORCE with the mean reward of the *other* trajectories of the group as baseline."""
    return Recipe(
        name="rloo",
        base="reinforce",
        sampler=Rollouts(),
        advantage=LeaveOneOut(),
        objective=PolicyGradient(gate=LogLikelihood(), aggregation=SequenceSum()),
    )


_REINFORCE_PP_TITLE = "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization"


@paper(
    "2501.03262",
    title=_REINFORCE_PP_TITLE,
    family="baselines",
    roles=("advantage", "reward"),
    year=2025,
    base="reinforce",
)
def reinforce_pp(kl_coefficient: float = 0.01, discount: float = 1.0) -> Recipe:
    """Reward-to-go with k1 KL in the reward, whitened over all tokens of the batch, under PPO's clip."""
    return Recipe(
        name="reinforce_pp",
        base="reinforce",
        sampler=Rollouts(),
        rewards=(KLPenalty(kl_coefficient, "k1"),) if kl_coefficient else (),
        advantage=BatchWhitened(RewardToGo(discount)),
        objective=PolicyGradient(gate=Clip(), aggregation=TokenMean()),
    )


@paper(
    "2501.03262",
    title=_REINFORCE_PP_TITLE,
    family="baselines",
    roles=("advantage",),
    year=2025,
    base="reinforce_pp",
)
def reinforce_pp_baseline(kl_coefficient: float = 0.01) -> Recipe:
    """The baseline form: rewards centered within the group, then whitened over the batch; KL (k2) in the loss.

    The paper moves the KL of this form from the reward into the loss and uses k2 there; ``kl_coefficient = 0`` needs no
    reference model.
    """
    return Recipe(
        name="reinforce_pp_baseline",
        base="reinforce_pp",
        sampler=Rollouts(),
        advantage=BatchWhitened(GroupCentered()),
        objective=PolicyGradient(gate=Clip(), aggregation=TokenMean(), regularizer=_kl(kl_coefficient, "k2")),
    )


@paper(
    "1707.06347",
    title="Proximal Policy Optimization Algorithms",
    family="baselines",
    roles=("advantage", "gate", "objective"),
    year=2017,
)
def ppo(
    clip: float = 0.2,
    discount: float = 1.0,
    trace: float = 0.95,
    value_weight: float = 0.5,
    value_clip: float | None = None,
    entropy_weight: float = 0.0,
    epochs: int = 2,
    minibatches: int = 2,
) -> Recipe:
    """Clipped surrogate with generalized advantage estimation and a learned value head.

    ``discount = 1`` is the convention for language; control tasks set their own (0.99). Several optimizer steps are
    taken on each batch.
    """
    bonus = entropy_weight * EntropyBonus() if entropy_weight else None
    return Recipe(
        name="ppo",
        sampler=Rollouts(),
        advantage=BatchWhitened(GAE(discount, trace)),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=TokenMean(),
            regularizer=bonus,
            critic=ValueLoss(value_weight, value_clip),
        ),
        optimization=AdamW(epochs=epochs, minibatches=minibatches),
    )


@paper(
    "2402.03300",
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    family="baselines",
    roles=("advantage",),
    year=2024,
    base="ppo",
)
def grpo(clip: float = 0.2, kl_coefficient: float = 0.0, group_size: int = 8) -> Recipe:
    """Group-standardised rewards instead of a critic; mean over trajectories of token means.

    The paper adds k3 KL in the loss with ``kl_coefficient = 0.04``; today's practice, and the default here, is 0.
    """
    return Recipe(
        name="grpo",
        base="ppo",
        sampler=Rollouts(group_size=group_size),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            gate=Clip(clip, clip), aggregation=SequenceMean(), regularizer=_kl(kl_coefficient, "k3")
        ),
    )


@paper(
    "2503.20783",
    title="Understanding R1-Zero-Like Training: A Critical Perspective",
    family="baselines",
    roles=("advantage", "aggregation"),
    year=2025,
    base="grpo",
)
def dr_grpo(length: int = 1024) -> Recipe:
    """GRPO without its two biases: no division by the group's standard deviation, none by the trajectory's length."""
    return Recipe(
        name="dr_grpo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupCentered(),
        objective=PolicyGradient(gate=Clip(), aggregation=FixedLength(length)),
    )


@paper(
    "2503.14476",
    title="DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    family="baselines",
    roles=("sampler", "reward", "gate", "aggregation"),
    year=2025,
    base="grpo",
)
def dapo(low: float = 0.2, high: float = 0.28, overlong_limit: int = 1024, overlong_buffer: int = 256) -> Recipe:
    """Clip-higher, dynamic sampling, token mean and overlong shaping on GRPO.

    ``overlong_limit`` and ``overlong_buffer`` are in tokens of a trajectory (the paper: 20480 and 4096).
    """
    return Recipe(
        name="dapo",
        base="grpo",
        sampler=DynamicSampling(),
        rewards=(OverlongPenalty(overlong_limit, overlong_buffer),),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=Clip(low, high), aggregation=TokenMean()),
    )


@paper(
    "2507.18071",
    title="Group Sequence Policy Optimization",
    family="baselines",
    roles=("ratio", "gate"),
    year=2025,
    base="grpo",
)
def gspo(low: float = 3e-4, high: float = 4e-4) -> Recipe:
    """GRPO with one ratio per trajectory, the geometric mean of its token ratios, clipped as a whole."""
    return Recipe(
        name="gspo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(ratio=GeometricMeanRatio(), gate=Clip(low, high), aggregation=SequenceMean()),
    )


@paper(
    "2506.13585",
    title="MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
    family="baselines",
    roles=("gate",),
    year=2025,
    base="grpo",
)
def cispo(high: float = 4.0) -> Recipe:
    """GRPO with a clipped, detached importance weight on the log-likelihood: every token keeps its gradient."""
    return Recipe(
        name="cispo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=ClippedWeight(high=high), aggregation=TokenMean()),
    )


@paper(
    "2110.00641",
    title="Batch size-invariance for policy optimization",
    family="baselines",
    roles=("correction",),
    year=2021,
    base="grpo",
)
def decoupled_ppo(cap: float = math.inf) -> Recipe:
    """The old policy clips, the behaviour policy corrects: ``-sg(pi_old / mu) min(r A, clip(r) A)``, with GRPO's ``A``.

    ``cap`` bounds the behaviour weight; infinity is the paper's.
    """
    return Recipe(
        name="decoupled_ppo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=Clip(), aggregation=SequenceMean(), correction=TruncatedImportance(high=cap)),
    )


def _kl(coefficient: float, estimator: str) -> Regularizer | None:
    """``coefficient * KL``, or nothing at 0, so that no reference model is kept."""
    return coefficient * KL(estimator) if coefficient else None  # type: ignore[arg-type]
