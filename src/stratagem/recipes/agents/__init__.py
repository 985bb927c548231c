"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import uncertainty
from stratagem.recipes.agents.uncertainty import *  # noqa: F403

__all__: list[str] = []
__all__ += uncertainty.__all__
