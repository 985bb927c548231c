"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import alignment, views
from stratagem.recipes.objectives.alignment import *  # noqa: F403
from stratagem.recipes.objectives.views import *  # noqa: F403

__all__: list[str] = []
__all__ += alignment.__all__
__all__ += views.__all__
