"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import alignment, curvature, losses, optimizers, trust_regions
from stratagem.recipes.objectives.alignment import *  # noqa: F403
from stratagem.recipes.objectives.curvature import *  # noqa: F403
from stratagem.recipes.objectives.losses import *  # noqa: F403
from stratagem.recipes.objectives.optimizers import *  # noqa: F403
from stratagem.recipes.objectives.trust_regions import *  # noqa: F403

__all__: list[str] = []
__all__ += alignment.__all__
__all__ += curvature.__all__
__all__ += losses.__all__
__all__ += optimizers.__all__
__all__ += trust_regions.__all__
