"""Recipes that credit plans apart from what carries them out."""

from __future__ import annotations

from stratagem.advantages import PlanningRaised
from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo

__all__ = ["hicra"]


@paper(
    "2509.03646",
    title="Emergent Hierarchical Reasoning in LLMs through Reinforcement Learning",
    family="reasoning",
    roles=("advantage",),
    year=2025,
    base="grpo",
)
def hicra(phrases: str | None = None, alpha: float = 0.2, top: float = 0.3) -> Recipe:
    """GRPO with ``A'_t = A_t + alpha |A_t| m_t``: where the policy plans (``m_t = 1``), what went well counts more and
    what went wrong less.

    ``phrases`` names a file of phrases that plan, such as ``stratagem grams`` makes of a run
    (:class:`~stratagem.grams.Grams`). Without it the ``top`` share of tokens by entropy stands for planning, which is
    reported of the authors' code for runs without phrases. See :class:`~stratagem.advantages.PlanningRaised`.

    alpha: 0 is GRPO, and so is a file without phrases.
    """
    base = grpo()
    return base.replace(
        name="hicra",
        base="grpo",
        sampler=base.sampler.replace(phrases=phrases),
        advantage=PlanningRaised(base.advantage, alpha, "entropy" if phrases is None else "phrases", top),
    )
