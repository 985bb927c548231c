"""Recipes that compare turns: by the step taken in them, or by their place in a dialogue."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized, LeaveOneOut, SharedSteps, StandardizedTurnReturn
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.objectives import KL, Clip, PolicyGradient, SequenceMean
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["mapo", "salt"]


@paper(
    "2510.20022",
    title="SALT: Step-level Advantage Assignment for Long-horizon Agents via Trajectory Graph",
    family="agents",
    roles=("advantage",),
    year=2025,
    base="grpo",
)
def salt(
    history: int | None = 1,
    count: Literal["steps", "trajectories"] = "steps",
    leave_one_out: bool = False,
    clip: float = 0.2,
    group_size: int = 8,
) -> Recipe:
    """GRPO in which steps that trajectories of a group share get the mean of their advantages.

    Steps are shared where state, action and next state are the same, and so are the ``history`` steps before (None:
    all of them, which is a prefix tree). ``count`` says whether a trajectory that takes a step twice counts twice.
    ``leave_one_out`` averages RLOO's advantages in place of GRPO's; ``{"advantage.of": ...}`` any others.

    The paper's text beyond its abstract was not available. That steps are divided into shared and distinct ones, of
    which the first are averaged, is from descriptions of it; when two steps count as one, and the defaults, are a
    reconstruction.
    """
    return Recipe(
        name="salt",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=SharedSteps(LeaveOneOut() if leave_one_out else GroupStandardized(), history, count),
        objective=PolicyGradient(gate=Clip(clip, clip), aggregation=SequenceMean()),
    )


@paper(
    "2603.06194",
    title="MAPO: Mixed Advantage Policy Optimization for Long-Horizon Multi-Turn Dialogue",
    family="agents",
    roles=("advantage",),
    year=2026,
    base="grpo",
)
def mapo(
    mix: float = 0.5,
    discount: float = 1.0,
    clip: float = 0.2,
    kl_coefficient: float = 0.001,
    group_size: int = 8,
) -> Recipe:
    """Returns of turns, standardised by turn index and over the batch, mixed: ``A = mix A^turn + (1 - mix) A^batch``.

    ``A^turn`` compares the dialogues of a group that reached the turn, ``A^batch`` all turns of the batch; a turn that
    only one dialogue of its group reached has ``A^batch`` alone. Rewards of turns are the task's: a judge of turns is a
    task that pays ``turn_reward``. With ``mix = 0`` no group is needed, and early turns, which have more to come, stand
    out by their place; with ``mix = 1`` they do not, and late turns have few to be compared with. For a mixture of unit
    deviation wrap the advantage in ``BatchWhitened``. ``kl_coefficient = 0`` needs no reference model.

    The paper's text beyond its abstract was not available: that both levels are mixed and that returns are sampled ones
    is from there; the formula, ``mix`` and the other defaults are a reconstruction.

    Raises :class:`InputError` for a ``mix`` outside [0, 1].
    """
    if not 0 <= mix <= 1:
        raise InputError(f"mapo: mix = {mix}: must lie in [0, 1]")
    by_turn = StandardizedTurnReturn(discount=discount, alone="batch")
    by_batch = StandardizedTurnReturn("batch", discount=discount)
    return Recipe(
        name="mapo",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=mix * by_turn + (1 - mix) * by_batch,
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )
