"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import (
    anchors,
    contexts,
    delegation,
    hierarchy,
    orchestration,
    planning,
    tools,
    turns,
    uncertainty,
)
from stratagem.recipes.agents.anchors import *  # noqa: F403
from stratagem.recipes.agents.contexts import *  # noqa: F403
from stratagem.recipes.agents.delegation import *  # noqa: F403
from stratagem.recipes.agents.hierarchy import *  # noqa: F403
from stratagem.recipes.agents.orchestration import *  # noqa: F403
from stratagem.recipes.agents.planning import *  # noqa: F403
from stratagem.recipes.agents.tools import *  # noqa: F403
from stratagem.recipes.agents.turns import *  # noqa: F403
from stratagem.recipes.agents.uncertainty import *  # noqa: F403

__all__: list[str] = []
__all__ += anchors.__all__
__all__ += contexts.__all__
__all__ += delegation.__all__
__all__ += hierarchy.__all__
__all__ += orchestration.__all__
__all__ += planning.__all__
__all__ += tools.__all__
__all__ += turns.__all__
__all__ += uncertainty.__all__
