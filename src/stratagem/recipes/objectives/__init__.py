"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import alignment, losses, mixing
from stratagem.recipes.objectives.alignment import *  # noqa: F403
from stratagem.recipes.objectives.losses import *  # noqa: F403
from stratagem.recipes.objectives.mixing import *  # noqa: F403

__all__: list[str] = []
__all__ += alignment.__all__
__all__ += losses.__all__
__all__ += mixing.__all__
