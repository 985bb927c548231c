"""Recipes for long inputs of many kinds: tasks side by side, each on its own scale, and an entropy kept in bounds."""

from __future__ import annotations

from typing import Literal

from stratagem.advantages import GroupStandardized, NormalizedReturn
from stratagem.catalogue import paper
from stratagem.objectives import EntropyHysteresis, PolicyGradient, SureNegatives, TokenMean, Unclipped
from stratagem.parts import Correction
from stratagem.recipe import Recipe
from stratagem.recipes.baselines import grpo
from stratagem.sampling import Rollouts

__all__ = ["qwenlong_l1_5"]


@paper(
    "2512.12967",
    title="QwenLong-L1.5: Post-Training Recipe for Long-Context Reasoning and Memory Management",
    family="reasoning",
    roles=("sampler", "advantage", "correction", "environment"),
    year=2025,
    base="grpo",
)
def qwenlong_l1_5(
    per_task: bool = True,
    bounds: tuple[float, float] | None = (0.15, 0.25),
    threshold: float | None = None,
    unit: Literal["token", "trajectory"] = "token",
    group_size: int = 8,
) -> Recipe:
    """On-policy GRPO with ``A_i = (r_i - mean_group r) / (std_task r + eps)`` and without its negative part from the
    batch whose entropy is above ``bounds[1]`` to the one whose is below ``bounds[0]``.

    One step on each batch, no clip, no KL, the mean over tokens. A task is a domain of the batch: a mixture
    (:class:`~stratagem.tasks.mixture.Mixture`) plays as many prompts of each in every batch. ``reading``
    (:class:`~stratagem.tasks.ReadingTask`) has documents that are read part by part with a memory; the turns of all its
    conversations have the advantage of the trajectory. Lengths that grow in stages are runs one after the other with
    other options of the task, and the merge between two of them is :mod:`stratagem.merging`. The authors synthesise
    their documents and questions and choose prompts by pass rate before training; neither is here.

    per_task: False standardises by group, as GRPO does.
    bounds: in nats (:class:`~stratagem.objectives.EntropyHysteresis`); None: negatives are always used. The authors'
    bounds were not available; these are read off a figure and fit no small model.
    threshold: None, or the entropy above which a bad ``token`` (or a ``trajectory``, by its mean) is always left out,
    which the authors compare (:class:`~stratagem.objectives.SureNegatives`).

    The authors take 128 prompts, a learning rate of 2e-6, ``sampler.temperature`` 0.7 and ``sampler.top_p`` 0.95. That
    the task's deviation is the population's is our reading.
    """
    masks: list[Correction] = [] if bounds is None else [EntropyHysteresis(*bounds)]
    if threshold is not None:
        masks.append(SureNegatives(threshold, unit))
    correction = None if not masks else masks[0] if len(masks) == 1 else masks[0] * masks[1]
    return grpo().replace(
        name="qwenlong_l1_5",
        base="grpo",
        sampler=Rollouts(group_size=group_size),
        advantage=NormalizedReturn("group", "domain", correction=0) if per_task else GroupStandardized(),
        objective=PolicyGradient(gate=Unclipped(), aggregation=TokenMean(), correction=correction),
    )
