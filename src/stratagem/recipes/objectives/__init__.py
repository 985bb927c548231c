"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import stale
from stratagem.recipes.objectives.stale import *  # noqa: F403

__all__: list[str] = []
__all__ += stale.__all__
