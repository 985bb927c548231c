"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import tools
from stratagem.recipes.agents.tools import *  # noqa: F403

__all__: list[str] = []
__all__ += tools.__all__
