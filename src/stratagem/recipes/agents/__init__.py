"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import turns
from stratagem.recipes.agents.turns import *  # noqa: F403

__all__: list[str] = []
__all__ += turns.__all__
