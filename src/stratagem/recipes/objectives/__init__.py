"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import reuse
from stratagem.recipes.objectives.reuse import *  # noqa: F403

__all__: list[str] = []
__all__ += reuse.__all__
