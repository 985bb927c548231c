"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

__all__: list[str] = []
