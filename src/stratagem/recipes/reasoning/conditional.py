"""Recipes whose credit depends on a figure of the trajectories of a group: their entropy or their length."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupHalves
from stratagem.catalogue import paper
from stratagem.objectives import Clip, FixedLength, PolicyGradient
from stratagem.parts import Schedule
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.schedules import CosineRestarts

__all__ = ["canon"]

Restarts = Literal["restarts_within", "restarts_across"]


@paper(
    "2509.23962",
    title="Conditional Advantage Estimation for Reinforcement Learning in Large Reasoning Models",
    family="reasoning",
    roles=("advantage",),
    year=2025,
    base="dr_grpo",
)
def canon(
    metric: Literal["entropy", "length", "order"] = "entropy",
    across: float | Literal["accuracy", "error"] | Restarts = 1.0,
    worth: float = 1.0,
    batches: int = 150,
    low: float = 0.2,
    high: float = 0.28,
    length: int = 1024,
    group_size: int = 16,
) -> Recipe:
    """Dr. GRPO with the other half of the group, by entropy or length, as baseline: ``A_i = R_i - mean_other R``.

    ``across`` below 1 adds the comparison within a half, ``A_i = across (R_i - mean_other R) + (1 - across) (R_i -
    mean_own R)``; 1/2 is Dr. GRPO. ``accuracy`` sets it to the mean return of each batch, for rewards in [0, 1],
    ``error`` to 1 minus that. ``restarts_within`` and ``restarts_across`` let it follow a cosine with restarts over
    ``batches``, a fifth of them warm-up: from 1 to 0.4 and back in each of three cycles, and from 1 to 0.4.
    ``worth`` below 1 favors high entropy, or short responses, by counting rewards of the other half less where halves
    are compared. ``metric = "order"`` halves groups by chance, a control.

    The rule, its variants and their numbers are those of the released code. ``length``, the constant that losses are
    divided by, is 8192 there: the limit on tokens of a response.

    Raises :class:`InputError` for fewer than four ``batches`` where ``across`` follows them.
    """
    schedules: tuple[Schedule, ...] = ()
    if across in ("restarts_within", "restarts_across"):
        # The weight that restarts is that of the comparison within halves in one case, across them in the other.
        initial, peak, floor = (1.0, 0.4, 1.0) if across == "restarts_within" else (0.0, 1.0, 0.4)
        schedules = (CosineRestarts("advantage.across", peak, floor, initial, batches, batches // 5),)
        across = initial
    return Recipe(
        name="canon",
        base="dr_grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=GroupHalves(metric, across, "low" if metric == "length" else "high", worth),  # type: ignore[arg-type]
        objective=PolicyGradient(gate=Clip(low, high), aggregation=FixedLength(length)),
        schedules=schedules,
    )
