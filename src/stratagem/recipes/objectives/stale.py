"""Objectives for batches older than the policy, sampled by an engine that is not quite the policy's."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupCentered, GroupStandardized
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import (
    Clip,
    Interpolated,
    MaskedImportance,
    MaskedLogLikelihood,
    MovingAverage,
    PolicyGradient,
    RoutingReplay,
    SamplingVersion,
    SequenceSum,
    TokenMean,
    TruncatedImportance,
)
from stratagem.optimizers import AdamW
from stratagem.parts import Objective, Proximal
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["minirl", "missing_old_logits"]


_MISSING_TITLE = "Missing Old Logits in Asynchronous Agentic RL: Semantic Mismatch and Repair Methods for Off-Policy "


@paper(
    "2605.12070",
    title=_MISSING_TITLE + "Correction",
    family="objectives",
    roles=("proximal", "correction"),
    year=2026,
    base="decoupled_ppo",
)
def missing_old_logits(
    proximal: Literal["average", "snapshots", "recorded", "interpolated", "update_start"] = "average",
    corrected: bool = True,
    low: float = 0.0,
    high: float = 2.0,
    clip: float = 0.2,
    window: float = 8.0,
    reset_below: float = 0.9,
    keep: int = 16,
    alpha: float = 0.5,
) -> Recipe:
    """Decoupled PPO around the right old policy: ``-1[low <= r_d <= high] sg(r_d) min(r_s A, clip(r_s) A)``.

    ``r_d = pi_old / mu`` is the engines' discrepancy and ``r_s = pi / pi_old`` the staleness, which holds only when
    ``pi_old`` has the weights that sampled. ``proximal`` says whose weights it has:

    - ``average``: the paper's revised PPO-EWMA, which needs no weights of the past. The mean over ``window`` optimizer
      steps stands in both ratios, and starts over when fewer than ``reset_below`` of the tokens are active.
    - ``snapshots``: exact, from the weights of the last ``keep`` versions; ``recorded``: the same numbers, noted by
      whoever samples.
    - ``interpolated``: ``alpha log mu + (1 - alpha) log pi``.
    - ``update_start``: the policy as the update starts, which is the wrong version for a batch that is older.

    ``corrected = False`` leaves ``r_d`` out: PPO-EWMA, and PPO's clip with ``update_start``.

    The advantage is GRPO's. The bounds of ``r_d`` are those of the released code; the paper's own were not available,
    and neither were its ``clip``, its ``window`` and ``alpha``: they are this library's choice. Set ``window`` to the
    staleness of the oldest batches in optimizer steps.
    """
    objective: Objective = PolicyGradient(
        gate=Clip(clip, clip),
        aggregation=TokenMean(),
        correction=MaskedImportance(low=low, high=high) if corrected else None,
    )
    return Recipe(
        name="missing_old_logits",
        base="decoupled_ppo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=Interpolated(objective, alpha) if proximal == "interpolated" else objective,
        proximal=_proximal(proximal, window, reset_below, keep),
    )


@paper(
    "2512.01374",
    title="Stabilizing Reinforcement Learning with LLMs: Formulation and Practices",
    family="objectives",
    roles=("gate", "correction", "aggregation", "view"),
    year=2025,
    base="grpo",
)
def minirl(
    low: float = 0.2,
    high: float = 0.27,
    cap: float = 5.0,
    replay: Literal["training", "rollout"] | None = None,
    minibatches: int = 1,
) -> Recipe:
    """REINFORCE off policy: ``-sum_t M_t sg(min(pi / mu, cap)) (R - mean R) log pi``, ``M`` the mask of a clip.

    The weight holds both the engines' discrepancy and the staleness, the mask only the staleness ``pi / pi_old``; sums
    over tokens are not divided by length. So its gradient is that of the expected return to first order in what
    separates ``pi`` from ``mu``.

    ``replay``: for a mixture of experts, replay the experts that the policy chose as the update began (``training``,
    R2) or those that the inference engine chose (``rollout``, R3). The paper needs none on policy, R2 with two
    mini-batches to a batch and R3 with four and eight. ``minibatches``: optimizer steps of a batch, of 1024 responses
    each in the paper.
    """
    return Recipe(
        name="minirl",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupCentered(),
        objective=PolicyGradient(
            gate=MaskedLogLikelihood(low, high),
            aggregation=SequenceSum(),
            correction=TruncatedImportance(high=cap, numerator="current"),
        ),
        view=None if replay is None else RoutingReplay(replay),
        optimization=AdamW(minibatches=minibatches),
    )


def _proximal(name: str, window: float, reset_below: float, keep: int) -> Proximal | None:
    known = {
        "average": MovingAverage(window, reset_below),
        "snapshots": SamplingVersion("snapshots", keep),
        "recorded": SamplingVersion("recorded", keep),
        "interpolated": None,
        "update_start": None,
    }
    if name not in known:
        raise unknown("proximal of missing_old_logits", name, known)
    return known[name]
