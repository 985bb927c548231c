"""Recipes that learn from comparisons of answers, as a game between policies or directly from labels."""

from stratagem.recipes.preferences import direct, nash, regression
from stratagem.recipes.preferences.direct import *  # noqa: F403
from stratagem.recipes.preferences.nash import *  # noqa: F403
from stratagem.recipes.preferences.regression import *  # noqa: F403

__all__: list[str] = []
__all__ += direct.__all__
__all__ += nash.__all__
__all__ += regression.__all__
