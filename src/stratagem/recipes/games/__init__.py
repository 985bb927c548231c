"""Recipes of games and of many tasks, a file per theme."""

from stratagem.recipes.games import openended
from stratagem.recipes.games.openended import *  # noqa: F403

__all__: list[str] = []
__all__ += openended.__all__
