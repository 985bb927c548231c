"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import optimizers
from stratagem.recipes.objectives.optimizers import *  # noqa: F403

__all__: list[str] = []
__all__ += optimizers.__all__
