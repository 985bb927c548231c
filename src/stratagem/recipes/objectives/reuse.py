"""Reuse: batches of past policies learned from again, and responses learned from before they end."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GAE, BatchWhitened
from stratagem.catalogue import paper
from stratagem.objectives import (
    KL,
    BlendedPenalty,
    CenteredClip,
    Clip,
    EntropyBonus,
    PolicyGradient,
    TokenMean,
    TokenRatio,
    ValueLoss,
)
from stratagem.optimizers import AdamW
from stratagem.parts import Regularizer, Schedule
from stratagem.recipe import Recipe
from stratagem.recipes import baselines
from stratagem.sampling import RecentBatches, Windows
from stratagem.schedules import LinearRamp, Switch

__all__ = ["remix", "tppo"]


@paper(
    "2507.06892",
    title="Squeeze the Soaked Sponge: Efficient Off-policy Reinforcement Finetuning for Large Language Model",
    family="objectives",
    roles=("sampler", "gate", "regularizer", "schedule"),
    year=2025,
    base="ppo",
)
def remix(
    on: Literal["ppo", "grpo"] = "ppo",
    share: float = 0.4,
    batches: int = 2,
    epochs: int = 2,
    clip: float = 0.2,
    kl_coefficient: float = 1e-3,
    entropy_weight: float = 0.0,
    reincarnate: int | None = 50,
) -> Recipe:
    """Old batches in the new one, clipped around where the update starts: ``min(r A, clip(r, c - e, c + e) A)``.

    With ``r = pi / mu`` and ``c = pi_k / mu``. Three things at once (ReMix):

    - Mix-PPG: ``share`` of the trajectories come from the last ``batches`` batches, and a batch gets ``epochs``
      passes. Advantages are those of the present critic (``on="ppo"``) or of the old group's own rewards
      (``on="grpo"``).
    - KL-Convex: ``kl_coefficient (l KL(pi || base) + (1 - l) KL(pi || pi_{k-1}))``, where ``l`` is 1 for 50 batches,
      then loses 0.1 in each ten down to 0.5.
    - Reincarnation: from batch ``reincarnate`` on the base is the policy as it was then, no old batch is used any more,
      and the rest is the algorithm it is built on, with one pass where Mix-PPG took several. The optimizer keeps its
      state. None: never.

    The paper reincarnates at 50 or 100 with PPO and at 50 with GRPO. Its own text was not at hand for all of this. Ours
    are: the weights of KL (0.001) and entropy (0), the estimator of the KL (k3), old groups drawn whole and all alike,
    and, after reincarnation, the single pass and the optimizer's state.
    """
    plain = baselines.ppo(clip=clip, epochs=epochs) if on == "ppo" else baselines.grpo(clip=clip)
    assert isinstance(plain.objective, PolicyGradient)
    penalties: list[Regularizer] = []
    schedules: list[Schedule] = []
    if kl_coefficient:
        penalties.append(kl_coefficient * BlendedPenalty(KL(), KL(to="previous"), 1.0))
        knob = f"objective.regularizer.{'terms.0.' if entropy_weight else ''}term.share"
        schedules.append(LinearRamp(knob, 1.0, 0.5, steps=50, begin=50, every=10))
    if entropy_weight:
        penalties.append(entropy_weight * EntropyBonus())
    recipe = plain.replace(
        name="remix",
        base=on,
        replay=RecentBatches(batches, share),
        objective=plain.objective.replace(
            ratio=TokenRatio("behavior"),
            gate=CenteredClip(clip, clip),
            regularizer=sum(penalties[1:], start=penalties[0]) if penalties else None,
        ),
        optimization=plain.optimization.replace(epochs=epochs),
        schedules=tuple(schedules),
    )
    if reincarnate is None:
        return recipe
    ordinary = {
        "replay": None,
        "objective.ratio.denominator": "old",
        "objective.gate": "clip",
        "objective.gate.low": clip,
        "objective.gate.high": clip,
        "optimization.epochs": 1,
    }
    switches = tuple(Switch(knob, value, reincarnate) for knob, value in ordinary.items())
    return recipe.replace(reference_from=reincarnate, schedules=(*recipe.schedules, *switches))


@paper(
    "2506.15050",
    title="Truncated Proximal Policy Optimization",
    family="objectives",
    roles=("sampler", "advantage", "objective"),
    year=2025,
    base="ppo",
)
def tppo(
    window: int = 32,
    slots: int = 64,
    clip: float = 0.2,
    discount: float = 1.0,
    trace: float = 0.95,
    value_weight: float = 0.5,
    epochs: int = 2,
    minibatches: int = 2,
) -> Recipe:
    """PPO on responses cut after ``window`` tokens a step: GAE with ``V(s_l) := V(s_{l-1})`` at the cut.

    ``slots`` responses run on across steps, so that no step waits for the longest. The policy learns from the tokens of
    each window, once; the critic from whole responses that have ended, on the returns themselves. Both losses are
    minimised by one optimizer with two groups of parameters, where the paper has two. Where the critic has parameters
    of its own, as in the lab, only the bound on the gradient's norm joins them; a language model's critic reads the
    policy's own trunk, which both losses move.

    The paper cuts responses of up to 24k tokens at 8k; ``window`` is to be a third or so of the longest response. Its
    own text was not at hand for all of this: ``clip``, ``trace``, the passes, and advantages whitened over the tokens
    of the window are those of this library's ``ppo``. A critic that knows nothing yet gives cut responses an advantage
    of 0 before whitening.
    """
    return Recipe(
        name="tppo",
        base="ppo",
        sampler=Windows(prompts_per_step=slots, tokens=window),
        advantage=BatchWhitened(GAE(discount, trace, critic_trace=1.0, bootstrap="last_value")),
        objective=PolicyGradient(gate=Clip(clip, clip), aggregation=TokenMean(), critic=ValueLoss(value_weight)),
        optimization=AdamW(epochs=epochs, minibatches=minibatches),
    )
