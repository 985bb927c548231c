"""Which slots of the taxonomy a recipe fills: what its parts say, and what only their composition tells."""

from __future__ import annotations

from collections.abc import Iterable

from stratagem.advantages import Constant
from stratagem.recipe import Recipe
from stratagem.taxonomy import SLOTS, in_order

STEPS = frozenset(
    {"turn_state", "turn_role", "turn_progress", "turn_value", "turn_action_value", "segment_start", "turn_reward"}
)
"""Fields of an experience whose reader credits the steps of a trajectory apart."""

DOUBTS = frozenset({"entropy", "behavior_logp"})
"""Fields that say how sure of itself the policy was."""

CLONED = frozenset({"learning.family.cloning", "learning.data.best_only", "learning.off_policy.cloning"})
LEARNED_BY_SIGN = frozenset({"learning.family.policy_gradient", "learning.data.all_solutions"})

OF_ROLES = {
    "sampler": "search",
    "planner": "search",
    "forking": "search",
    "online_rule": "search",
    "search": "search",
    "selection": "search",
    "reward": "reward",
    "verifier": "reward",
    "environment": "reward",
    "solver": "learning",
    "advantage": "learning",
    "objective": "learning",
    "ratio": "learning",
    "gate": "learning",
    "correction": "learning",
    "aggregation": "learning",
    "regularizer": "learning",
    "schedule": "learning",
    "curriculum": "learning",
    "optimization": "learning",
    "policy": "initialisation",
    "memory": "search",
}
"""Slot of a technique that is no recipe and says nothing else of itself, by what it changes."""


def recipe_tags(recipe: Recipe) -> tuple[str, ...]:
    """Tags of a recipe, in the order of the taxonomy: a function of its parts alone.

    To what the parts say (:meth:`stratagem.part.Part.tagged`) the composition adds:

    - a constant advantage is cloning, of the best alone, whatever the loss; cloning closes the gap between who sampled
      and who learns in its own way;
    - rewards of outcomes, unless it learns from a solver's solutions alone; rewards of steps, where a part reads
      ``STEPS``; their source is the environment, unless a reward says that it is another;
    - search is guided from outside where it samples several solutions and rewards judge them, and from inside where
      sampler or selections read ``DOUBTS``.
    """
    tags = set(recipe.tagged())
    clones = isinstance(recipe.advantage, Constant)
    if clones:
        tags = (tags - LEARNED_BY_SIGN - {"learning.off_policy.importance_weights"}) | CLONED
    if not clones or recipe.selections:
        tags.add("reward.granularity.outcome")
        if not any(tag.startswith("reward.source.") for tag in tags):
            tags.add("reward.source.environment")
    if recipe.needs() & STEPS:
        tags.add("reward.granularity.process")
    searches = any(tag.startswith("search.structure.") for tag in tags)
    if searches and "reward.source.environment" in tags:
        tags.add("search.guidance.external")
    if searches and any(part.needs() & DOUBTS for part in (recipe.sampler, *recipe.selections)):
        tags.add("search.guidance.internal")
    return in_order(tags)


def role_tags(roles: Iterable[str]) -> tuple[str, ...]:
    """The slots of a technique that changes these parts; none for a metric or a diagnostic."""
    return in_order(OF_ROLES[role] for role in roles if role in OF_ROLES)


def by_slot(tags: Iterable[str]) -> dict[str, list[str]]:
    """Tags of each of the four slots; an empty list where there are none."""
    tags = in_order(tags)
    return {slot: [tag for tag in tags if tag.split(".")[0] == slot] for slot in SLOTS}
