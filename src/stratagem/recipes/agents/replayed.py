"""Agents that learn again from what once succeeded where all else fails."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import Clip, PolicyGradient, TokenMean, TokenRatio
from stratagem.recipe import Recipe
from stratagem.rewards import FormatPenalty
from stratagem.sampling import Rollouts, SuccessReplay

__all__ = ["arpo"]


@paper(
    "2505.16282",
    title="ARPO: End-to-End Policy Optimization for GUI Agents with Experience Replay",
    family="agents",
    roles=("sampler", "curriculum", "objective"),
    year=2025,
    base="grpo",
)
def arpo(
    per_task: int = 8,
    success_above: float = 0.1,
    spread_below: float = 0.05,
    mean_below: float = 0.2,
    replay_logprobs: Literal["recompute", "stored"] = "recompute",
    max_age: int | None = None,
    format_penalty: float = 0.5,
    clip_low: float = 0.2,
    clip_high: float = 0.3,
    group_size: int = 8,
) -> Recipe:
    """GRPO in which a group that failed as a whole, ``std e < 0.05`` and ``mean e < 0.2``, gets one earlier success of
    its task in the place of its first rollout: ``A = (R - mean R) / (std R + 1e-6)``, ``R = e + 0.5 f``.

    ``e`` is what the task pays, ``f`` is -1 where its reward named ``format`` is below 1, else 0. The newest
    ``per_task`` successes (``e > success_above``) of every start state are held
    (:class:`~stratagem.sampling.SuccessReplay`). Where none is held, this is GRPO with bounds of 0.2 and 0.3, token
    level and no KL.

    ``replay_logprobs``: with ``recompute`` the policy says anew how likely a replayed token is before the update, so
    its ratio begins at 1 and what is off-policy counts as on-policy, as in the released code; with ``stored`` ratios of
    all tokens are to the policy that sampled them, ``pi / mu``, and are clipped around 1. ``max_age``: no success
    sampled more optimizer steps ago is replayed; None: any is.

    The paper trains on tasks that the model it starts from solved at least once in some attempts. Count with
    ``stratagem align --task T --samples 16``, which prints the ``--set sampler.start_states=[...]`` to train on
    (:meth:`Alignment.solved <stratagem.study.alignment.Alignment.solved>`). Tasks have to come again for a replay, so
    name them where there is no end of them.

    Thresholds and sizes are those of the released code. It samples 16 tasks at a time at temperature 1, with a learning
    rate of 1e-6; number of attempts of the filter not verified.

    Raises :class:`InputError` for a number out of range, and for another ``replay_logprobs``.
    """
    if replay_logprobs not in ("recompute", "stored"):
        raise InputError(f"arpo: replay_logprobs = {replay_logprobs!r}: must be 'recompute' or 'stored'")
    return Recipe(
        name="arpo",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        replay=SuccessReplay(per_task, success_above, spread_below, mean_below, max_age=max_age),
        rewards=(FormatPenalty(format_penalty),),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            ratio=TokenRatio("old" if replay_logprobs == "recompute" else "behavior"),
            gate=Clip(clip_low, clip_high),
            aggregation=TokenMean(),
        ),
    )
