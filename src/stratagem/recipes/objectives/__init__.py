"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import alignment
from stratagem.recipes.objectives.alignment import *  # noqa: F403

__all__: list[str] = []
__all__ += alignment.__all__
from stratagem.recipes.objectives import losses
from stratagem.recipes.objectives.losses import *  # noqa: F403

__all__: list[str] = []
__all__ += losses.__all__
