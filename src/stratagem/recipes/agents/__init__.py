"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import hierarchy
from stratagem.recipes.agents.hierarchy import *  # noqa: F403

__all__: list[str] = []
__all__ += hierarchy.__all__
