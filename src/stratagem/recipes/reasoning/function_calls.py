"""Recipes for calling functions."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import EntropyRaised
from stratagem.catalogue import paper
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo

__all__ = ["funrl_function_calling"]


@paper(
    "2508.05118",
    title="Exploring Superior Function Calls via Reinforcement Learning",
    family="reasoning",
    roles=("advantage", "environment"),
    year=2025,
    base="grpo",
)
def funrl_function_calling(
    form: Literal["capped", "clipped", "logistic"] = "capped",
    strength: float = 0.4,
    on: Literal["all", "thoughts"] = "all",
    kl_coefficient: float = 0.0,
) -> Recipe:
    """GRPO with ``A_i + sigma(H_i)``: more for answers whose thoughts were unsure, ``sigma = min(0.4 H, |A| / 2)``.

    ``H`` is the mean entropy of a rollout's thought (:class:`~stratagem.advantages.EntropyRaised`, which says what is
    reconstructed: all of ``sigma``). The task ``function_calls`` has the paper's reward, all or nothing for form and
    calls, and marks thoughts; :func:`~stratagem.tasks.call_data.prepare_calls` is its preparation of data. A task that
    marks none can take all of a response for thought: ``{"advantage.within": "response"}``.

    strength: 0 is GRPO.  kl_coefficient: of a KL to the reference, which the paper has; its size was not available.
    """
    base = grpo(kl_coefficient=kl_coefficient)
    return base.replace(
        name="funrl_function_calling", base="grpo", advantage=EntropyRaised(base.advantage, form, strength, on=on)
    )
