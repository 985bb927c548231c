"""Recipes that learn from comparisons of answers, as a game between policies or directly from labels."""

from stratagem.recipes.preferences import (
    accelerated,
    direct,
    models,
    nash,
    offline,
    population,
    regression,
    trajectories,
)
from stratagem.recipes.preferences.accelerated import *  # noqa: F403
from stratagem.recipes.preferences.direct import *  # noqa: F403
from stratagem.recipes.preferences.models import *  # noqa: F403
from stratagem.recipes.preferences.nash import *  # noqa: F403
from stratagem.recipes.preferences.offline import *  # noqa: F403
from stratagem.recipes.preferences.population import *  # noqa: F403
from stratagem.recipes.preferences.regression import *  # noqa: F403
from stratagem.recipes.preferences.trajectories import *  # noqa: F403

__all__: list[str] = []
__all__ += accelerated.__all__
__all__ += direct.__all__
__all__ += models.__all__
__all__ += nash.__all__
__all__ += offline.__all__
__all__ += population.__all__
__all__ += regression.__all__
__all__ += trajectories.__all__
