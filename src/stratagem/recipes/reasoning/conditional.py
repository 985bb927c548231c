"""Recipes whose credit depends on how long or how uncertain the responses of a group are."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupHalves, LongerSuccess, WeighedGroups
from stratagem.catalogue import paper
from stratagem.objectives import KL, Clip, FixedLength, PolicyGradient, SequenceMean
from stratagem.parts import Schedule
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts
from stratagem.schedules import CosineRestarts

__all__ = ["adora", "canon"]

Restarts = Literal["restarts_within", "restarts_across"]


@paper(
    "2602.10019",
    title="ADORA: Training Reasoning Models with Dynamic Advantage Estimation on Reinforcement Learning",
    family="reasoning",
    roles=("advantage",),
    year=2026,
    base="grpo",
)
def adora(
    form: Literal["text", "vision"] = "text",
    others: float = 0.1,
    promising: float = 1.0,
    threshold: float = 0.5,
    limit: int | None = None,
    clip: float = 0.2,
    kl_coefficient: float = 0.001,
    group_size: int = 16,
) -> Recipe:
    """GRPO whose groups count in full where their longest success is longer than failures are on average, else a tenth.

    ``A'_i = w_g A_i``, with ``w_g = promising`` where the rule says yes and ``others`` elsewhere, visit by visit.
    ``form`` is the release: in that for ``text`` a group without failures is promising and one without successes is
    not, in that for ``vision`` and language the other way round; with two rewards alone they differ only where all
    failures were cut. A success earns more than ``threshold``; failures that
    were cut do not count, those of at least ``limit`` tokens or, for None, those the batch says were cut. Another rule
    is ``{"advantage.rule": "pass_rate_band"}``, another estimate ``{"advantage.of": ...}``.

    Rule and weights are those of the released code. Its thresholds are 0.5 for vision, and 1.01 for text, with rewards
    that exceed 1 only where answer and format are right; its limits 4094 and 4054. The paper's text beyond its abstract
    was not available. A summary of it says that promising groups are amplified in some runs, and that a rule of
    difficulty stands beside that of length: ``promising`` above 1 and the band of pass rates are reconstructions.
    Where length says nothing of success, the longest of many successes is still longer than the mean failure, so that
    the rule damps groups of few successes.
    """
    text = form == "text"
    rule = LongerSuccess(threshold, limit, without_failures=text, without_successes=not text)
    return Recipe(
        name="adora",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=WeighedGroups(rule=rule, promising=promising, others=others),
        objective=PolicyGradient(
            gate=Clip(clip, clip),
            aggregation=SequenceMean(),
            regularizer=kl_coefficient * KL("k3") if kl_coefficient else None,
        ),
    )


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
