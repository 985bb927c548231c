"""Agents that call tools: credit for single calls, and rewards that leave it to the policy when to call."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Literal

from stratagem.advantages import GroupStandardized, StandardizedTurnReturn
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import KL, Clip, EntropyBonus, PolicyGradient, SequenceMean, TokenMean
from stratagem.parts import Advantage
from stratagem.recipe import Recipe
from stratagem.rewards import Correct, FormatGate, OverlongPenalty
from stratagem.sampling import DynamicSampling, Rollouts

__all__ = ["matchtir", "tapo"]

_TAPO_TITLE = (
    "Tool-Augmented Policy Optimization: Synergizing Reasoning and Adaptive Tool Use with Reinforcement Learning"
)


@paper(
    "2601.10712",
    title="MatchTIR: Fine-Grained Supervision for Tool-Integrated Reasoning via Bipartite Matching",
    family="agents",
    roles=("advantage", "reward"),
    year=2026,
    base="grpo",
)
def matchtir(
    levels: Literal["both", "trajectory", "turn"] = "both",
    discount: float = 0.9,
    kl_coefficient: float = 0.001,
    entropy_weight: float = 0.001,
    group_size: int = 16,
) -> Recipe:
    """Rewards of turns by matching their tool calls with a reference; ``A = (A_trajectory + A_turn) / 2`` under GRPO.

    ``A_trajectory`` is the group-standardised sum of an episode's turn rewards. ``A_turn`` standardises the discounted
    sum from a turn to the end, ``D_t = sum_k discount^(k - t) r_k``, among the group's turns of the same index; where
    only one trajectory comes that far it is ``D_t`` as it is.

    What a turn earned is the task's affair, since it compares texts: ``tool_chain`` matches calls as the paper does
    (``reward=hard``, its KM; ``soft``, its OT; ``greedy``, which is what the released code does for KM). Where a task
    rewards the last turn alone, both terms are of the outcome. Tool output has no rows in a batch, so nothing is to be
    masked.

    ``levels``: ``trajectory`` or ``turn`` keeps one of the two terms, at its full weight. Similarity, matching and the
    numbers are those of the released code; how it adds up tokens was not looked up, and the mean over trajectories of
    token means is GRPO's.

    Raises :class:`InputError` for unknown levels.
    """
    trajectory, turn = GroupStandardized(), StandardizedTurnReturn("turn_index", discount, alone="return")
    advantages: dict[str, Advantage] = {
        "both": 0.5 * trajectory + 0.5 * turn,
        "trajectory": trajectory,
        "turn": turn,
    }
    if levels not in advantages:
        raise unknown("levels of matchtir", levels, advantages)
    penalties = [kl_coefficient * KL("k3")] if kl_coefficient else []
    penalties += [entropy_weight * EntropyBonus()] if entropy_weight else []
    return Recipe(
        name="matchtir",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=advantages[levels],
        objective=PolicyGradient(
            gate=Clip(), aggregation=SequenceMean(), regularizer=reduce(add, penalties) if penalties else None
        ),
    )


@paper(
    "2510.07038",
    title=_TAPO_TITLE + "Learning",
    family="agents",
    roles=("reward", "sampler", "gate"),
    year=2025,
    base="dapo",
)
def tapo(
    judged_by: Literal["accuracy", "reward"] = "accuracy",
    low: float = 0.2,
    high: float = 0.28,
    dual: float = 10.0,
    overlong_limit: int = 2048,
    overlong_buffer: int = 1024,
    group_size: int = 4,
) -> Recipe:
    """DAPO for policies that may call tools: ``R = s + R_length``, or -1 in place of the task's score ``s`` for a wrong
    format, with the length in tokens of the policy alone and neither pay nor charge for calls.

    ``judged_by``: groups are dropped when all their trajectories are equally right (``accuracy``, the paper's), or when
    all have the same reward of the task. Up to ten rounds are sampled for a batch, which then has the groups there are.

    Tool output has no rows in a batch: it can neither train nor count as length, as the paper wants it. ``toolbox`` is
    a task of this kind, with its tags. ``R_length`` falls to -1 at ``overlong_limit`` and no further. ``group_size`` is
    4, and 16 in the paper's larger runs; the numbers are those of the released code.

    Raises :class:`InputError` for an unknown judge.
    """
    judges = {"accuracy": Correct(), "reward": None}
    if judged_by not in judges:
        raise unknown("judged_by of tapo", judged_by, judges)
    return Recipe(
        name="tapo",
        base="dapo",
        sampler=DynamicSampling(group_size=group_size, refill_rounds=9, judged_by=judges[judged_by]),
        rewards=(FormatGate(), OverlongPenalty(overlong_limit, overlong_buffer)),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=Clip(low, high, dual=dual), aggregation=TokenMean()),
    )
