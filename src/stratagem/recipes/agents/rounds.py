"""Agents whose rounds are training samples of their own."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import StandardizedTurnReturn
from stratagem.catalogue import paper
from stratagem.objectives import Clip, GeometricMeanRatio, PolicyGradient, TurnMean
from stratagem.recipe import Recipe
from stratagem.sampling import DivisibleTurns, Rollouts

__all__ = ["iterresearch"]


@paper(
    "2511.07327",
    title="IterResearch: Rethinking Long-Horizon Agents via Markovian State Reconstruction",
    family="agents",
    roles=("policy", "reward", "advantage", "selection"),
    year=2025,
    base="gspo",
)
def iterresearch(
    discount: float = 0.995,
    each: Literal["turn", "trajectory"] = "turn",
    divisor: int = 8,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    group_size: int = 16,
) -> Recipe:
    """Efficiency-aware policy optimization: round ``t`` of ``T`` is a sample of its own that earns
    ``r_t = discount^(T - t) R``, with ``A = (r - mean r) / (std r + 1e-6)`` over all rounds of a group and GSPO's ratio
    of each round.

    Of rollouts that succeed, the rounds of a shorter one earn more; where all fail nothing is learned. A round that was
    not well formed (``turn_well_formed``) earns 0. A round is a turn, which the task shows as a conversation by itself:
    the question, the report written last and the last result, and nothing earlier (``research`` is such a task).

    discount: per round, in [0, 1]; 1 is no pressure to be quick. each: what counts the same in mean and deviation. The
    paper's are over rounds, so that a long rollout weighs more; with ``trajectory`` each of its ``T`` rounds weighs
    ``1 / T``. divisor: as many rounds of a batch train as this divides, a few others are left out at random
    (:class:`~stratagem.sampling.DivisibleTurns`); with fewer rounds than that, all train. It is the number of workers a
    batch is shared out to, and its default is ours.

    What the paper says beyond its abstract was known from descriptions alone. The value 0.995 of the discount could not
    be checked with the paper itself; the bounds of the clip are GSPO's. The paper starts from rejection-sampling
    fine-tuning, which is no part of this recipe.

    Raises :class:`InputError` for a number out of range.
    """
    return Recipe(
        name="iterresearch",
        base="gspo",
        sampler=Rollouts(group_size=group_size),
        selections=(DivisibleTurns(divisor),),
        advantage=StandardizedTurnReturn("group", discount, each=each, malformed="zero"),
        objective=PolicyGradient(
            ratio=GeometricMeanRatio("turn"), gate=Clip(clip_low, clip_high), aggregation=TurnMean()
        ),
    )
