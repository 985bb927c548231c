"""Agents that hand sub-tasks to agents of their own contexts, under one model and one reward."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized, LoneTrajectories
from stratagem.catalogue import paper
from stratagem.objectives import KL, CallShare, Clip, PolicyGradient, TokenMean
from stratagem.recipe import Recipe
from stratagem.rewards import NotedRewards
from stratagem.sampling import Rollouts

__all__ = ["coda"]


@paper(
    "2512.12716",
    title="CoDA: A Context-Decoupled Hierarchical Agent with Reinforcement Learning",
    family="agents",
    roles=("reward", "advantage", "aggregation"),
    year=2025,
    base="grpo",
)
def coda(
    refine_weight: float = 0.5,
    alone: Literal["return", "nothing"] = "return",
    normalize_calls: bool = False,
    clip: float = 0.2,
    dual: float = 3.0,
    kl_coefficient: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    """A planner and its executors, one model, trained by ``A = (r - mean r) / (std r + 1e-6)`` of the whole rollout
    with ``r = (6 ans - 3) + planner format + mean executor format + 0.5 refine``.

    Mean and deviation (``G - 1``) are over the rollouts of a group, however many calls each made, and all tokens of
    both roles of a rollout have its advantage. ``ans`` is what the task pays; the formats and ``refine``, whether an
    executor noted a right answer, are rewards that it notes (``planner_format``, ``executor_format``, ``refine``), and
    count nothing where it does not. ``delegated:search`` is a task of this kind. What tools return has no rows in a
    batch, so nothing is to be masked.

    refine_weight: of ``refine``.  alone: what a rollout earns that is alone in its group: its ``return``, as in the
    released code (a mean of 0 and a deviation of 1), or ``nothing``.  normalize_calls: each call's tokens weigh ``1 /
    calls`` of its rollout (:class:`~stratagem.objectives.CallShare`); the released code counts every token alike.

    All formulas and numbers are those of the released code, which also samples at temperature 1 with 3 passages and 6
    turns and trains with a learning rate of 1e-6, for a model of 3 billion parameters. ``kl_coefficient = 0`` needs no
    reference model.
    """
    compared = GroupStandardized()
    return Recipe(
        name="coda",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        rewards=(
            NotedRewards(
                ("planner_format", "executor_format", "refine"), (1.0, 1.0, refine_weight), scale=6.0, offset=-3.0
            ),
        ),
        advantage=LoneTrajectories(compared, earns=alone),
        objective=PolicyGradient(
            gate=Clip(clip, clip, dual=dual),
            aggregation=CallShare(TokenMean()) if normalize_calls else TokenMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
