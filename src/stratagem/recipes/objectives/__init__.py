"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import gates
from stratagem.recipes.objectives.gates import *  # noqa: F403

__all__: list[str] = []
__all__ += gates.__all__
