"""Recipes for agents of many turns: credit between turns, hierarchies, tools, memory, orchestration."""

from stratagem.recipes.agents import anchors, contexts, helped, hierarchy, orchestration, tools, turns, uncertainty
from stratagem.recipes.agents.anchors import *  # noqa: F403
from stratagem.recipes.agents.contexts import *  # noqa: F403
from stratagem.recipes.agents.helped import *  # noqa: F403
from stratagem.recipes.agents.hierarchy import *  # noqa: F403
from stratagem.recipes.agents.orchestration import *  # noqa: F403
from stratagem.recipes.agents.tools import *  # noqa: F403
from stratagem.recipes.agents.turns import *  # noqa: F403
from stratagem.recipes.agents.uncertainty import *  # noqa: F403

__all__: list[str] = []
__all__ += anchors.__all__
__all__ += contexts.__all__
__all__ += helped.__all__
__all__ += hierarchy.__all__
__all__ += orchestration.__all__
__all__ += tools.__all__
__all__ += turns.__all__
__all__ += uncertainty.__all__
