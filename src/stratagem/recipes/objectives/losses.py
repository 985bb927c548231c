"""Losses of another shape than a clipped surrogate."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupCentered
from stratagem.catalogue import paper
from stratagem.objectives import FixedLength, ImplicitNegative, PolicyGradient, RandomPolicyRegression
from stratagem.recipe import Recipe
from stratagem.sampling import DynamicSampling, Rollouts

__all__ = ["nft", "rover"]


@paper(
    "2505.18116",
    title="Bridging Supervised Learning and Reinforcement Learning in Math Reasoning",
    family="objectives",
    roles=("gate", "sampler"),
    year=2025,
    base="dr_grpo",
)
def nft(
    weight: Literal["centered", "standardized", "equal"] = "centered",
    negative: float = 1.0,
    floor: float = 1.0,
    length: int = 1024,
) -> Recipe:
    """Negative-aware fine-tuning: ``-log R`` on right answers, ``-log max((1 - r R) / (1 - r), floor)`` on wrong ones.

    Wrong answers raise the likelihood of an implicit negative policy built from the same network; on policy the
    gradient is that of Dr. GRPO, or of GRPO with ``weight="standardized"``. Groups without both right and wrong answers
    are sampled again. The released code divides the sum over tokens by a constant (1000 there); ``length`` is that
    constant here, per trajectory.
    """
    return Recipe(
        name="nft",
        base="dr_grpo",
        sampler=DynamicSampling(),
        advantage=GroupCentered(),
        objective=PolicyGradient(
            gate=ImplicitNegative(weight=weight, negative=negative, floor=floor), aggregation=FixedLength(length)
        ),
    )


@paper(
    "2509.24981",
    title="Random Policy Valuation is Enough for LLM Reasoning with Verifiable Rewards",
    family="objectives",
    roles=("objective",),
    year=2025,
    base="dr_grpo",
)
def rover(scale: float = 1.0, next_value: float = 1.0) -> Recipe:
    """Regress ``rho log(pi / pi_old)`` on the centered reward plus the next state's value under the uniform policy.

    In a deterministic tree with a reward of 0 or 1 at the end, acting by the values of the random policy is optimal;
    here the policy's own logits learn them. No clip, no KL and no critic.
    """
    return Recipe(
        name="rover",
        base="dr_grpo",
        sampler=Rollouts(),
        advantage=GroupCentered(),
        objective=RandomPolicyRegression(scale, next_value),
    )
