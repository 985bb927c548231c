"""Objectives that keep an update within a region: budgets by level, masks by discrepancy, a bounded ratio."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GAE, GroupQuantileTarget, GroupStandardized
from stratagem.catalogue import paper
from stratagem.errors import unknown
from stratagem.objectives import (
    BoundedRatio,
    Clip,
    DiscrepancyMask,
    FixedLength,
    LevelBudgets,
    PolicyGradient,
    SequenceMean,
    TokenMean,
    TokenRatio,
    TowardsTarget,
)
from stratagem.objectives.budgets import Level
from stratagem.optimizers import AdamW
from stratagem.recipe import Recipe
from stratagem.sampling import Rollouts

__all__ = ["bpo", "fiberpo", "hispo"]


@paper(
    "2603.08239",
    title="Fibration Policy Optimization",
    family="objectives",
    roles=("gate",),
    year=2026,
    base="grpo",
)
def fiberpo(
    levels: Literal["trajectory", "domain"] = "trajectory", up: float = 0.12, down: float = 0.08, token: float = 0.03
) -> Recipe:
    """GRPO whose ratio is gated twice: the drift of the trajectory by one budget, each token's own part by another.

    ``levels = "domain"`` adds budgets for the prompt group and the domain (FiberPO-Domain), the same for each level. It
    needs all trajectories of a domain in one forward pass: ``optimization.microbatch_tokens`` must stay None, and with
    mini-batches each counts as a batch of its own.

    ``up`` and ``down`` bound the mean rise and fall of a level's log-ratios, ``token`` what a token may deviate. The
    paper's own values were not available, nor its formulas beyond the trajectory: ``up + down = 0.2``, ``token = 0.03``
    and the levels above the trajectory are a reconstruction. The paper's trust region in total variation is the gate
    ``shared_budget``.
    """
    known: dict[str, tuple[Level, ...]] = {
        "trajectory": ("trajectory",),
        "domain": ("trajectory", "group", "domain"),
    }
    if levels not in known:
        raise unknown("levels of fiberpo", levels, known)
    gated = known[levels]
    gate = LevelBudgets(gated, (up,) * len(gated), (down,) * len(gated), token)
    return Recipe(
        name="fiberpo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(gate=gate, aggregation=SequenceMean()),
    )


@paper(
    "2603.21065",
    title="LongCat-Flash-Prover: Advancing Native Formal Reasoning via Agentic Tool-Integrated Reinforcement Learning",
    family="objectives",
    roles=("ratio", "gate", "correction", "aggregation"),
    year=2026,
    base="grpo",
)
def hispo(
    trajectory: float = 0.01,
    token: float = 0.5,
    low: float = 0.2,
    high: float = 0.28,
    negative_high: float = 4.0,
    length: int = 1024,
) -> Recipe:
    """HisPO: trajectories, then tokens, on which the sampling and the learning engine disagree are removed.

    What is left goes through PPO's clip with the whole ratio ``pi / mu``, engine gap and staleness together.
    ``trajectory`` and ``token`` bound the disagreement (:class:`DiscrepancyMask`); ``low``, ``high`` and
    ``negative_high`` are the triplet clip: ``1 + high`` for good actions, ``1 - low`` and ``1 + negative_high`` for bad
    ones, none with a gradient beyond. ``length`` is the constant by which sums over tokens are divided, the limit on
    tokens of a trajectory.

    The paper prints neither the thresholds nor the clips, and names the triplet clip without a formula: the defaults
    are values usual elsewhere, the clip is a reconstruction.

    This is the paper's objective. Its data loop comes before it and is a recipe of parts: :func:`rejection_sft` with
    ``sampler = DynamicSampling(refill_rounds=0)``, which keeps prompts whose pass rate is strictly between 0 and 1, and
    ``selections = (ShortestSuccess(),)``, which keeps one short trajectory of each. Its checks of formal proofs are
    those of the task ``proof``: syntax, theorem unchanged, legality.
    """
    return Recipe(
        name="hispo",
        base="grpo",
        sampler=Rollouts(),
        advantage=GroupStandardized(),
        objective=PolicyGradient(
            ratio=TokenRatio("behavior"),
            gate=Clip(low, high, dual=1 + negative_high),
            aggregation=FixedLength(length),
            correction=DiscrepancyMask(trajectory, token),
        ),
    )


@paper(
    "2604.18578",
    title="Bounded Ratio Reinforcement Learning",
    family="objectives",
    roles=("objective", "advantage"),
    year=2026,
    base="ppo",
)
def bpo(
    variant: Literal["critic", "group"] = "critic",
    bound: float = 0.3,
    temperature: float | None = None,
    discount: float = 0.99,
    trace: float = 0.95,
    group_size: int = 32,
    epochs: int = 10,
) -> Recipe:
    """Regress the ratio to the best one within ``1 +- bound``: up for actions above the median return, down below it.

    ``variant = "critic"`` is BPO, with the critic's median of ``Q(s, .)`` and ``discount`` and ``trace`` of its
    lambda-return; ``"group"`` is GBPO, with the median of ``group_size`` returns. ``temperature`` rounds the step from
    one bound to the other; None is the published value, 1e-3 in units of the return with a critic, 1e-4 in standard
    deviations of the group without. Published, too: ten epochs, with a critic in mini-batches of a 32nd of the batch.
    """
    if variant not in ("critic", "group"):
        raise unknown("variant of bpo", variant, ("critic", "group"))
    if variant == "group":
        return Recipe(
            name="bpo",
            base="ppo",
            sampler=Rollouts(group_size=group_size),
            advantage=GroupQuantileTarget(
                low=bound, high=bound, temperature=1e-4 if temperature is None else temperature
            ),
            objective=PolicyGradient(gate=TowardsTarget(), aggregation=TokenMean()),
            optimization=AdamW(epochs=epochs),
        )
    return Recipe(
        name="bpo",
        base="ppo",
        sampler=Rollouts(),
        advantage=GAE(discount, trace),
        objective=BoundedRatio(bound, 1e-3 if temperature is None else temperature),
        optimization=AdamW(learning_rate=3e-4, epochs=epochs, minibatches=32),
    )
