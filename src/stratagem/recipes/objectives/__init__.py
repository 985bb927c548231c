"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import diffusion
from stratagem.recipes.objectives.diffusion import *  # noqa: F403

__all__: list[str] = []
__all__ += diffusion.__all__
