"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import trust_regions
from stratagem.recipes.objectives.trust_regions import *  # noqa: F403

__all__: list[str] = []
__all__ += trust_regions.__all__
