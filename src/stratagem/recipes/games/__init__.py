"""Recipes for several agents that learn in one game."""

from stratagem.recipes.games import cooperative
from stratagem.recipes.games.cooperative import *  # noqa: F403

__all__: list[str] = []
__all__ += cooperative.__all__
