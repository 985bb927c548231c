"""Recipes for agents of many turns: credit between turns, hierarchies, roles, tools, memory, costs, orchestration."""

from stratagem.recipes.agents import (
    anchors,
    beliefs,
    contexts,
    costs,
    delegation,
    documents,
    execution,
    helped,
    hierarchy,
    orchestration,
    planning,
    progress,
    replayed,
    rounds,
    teams,
    tools,
    turns,
    uncertainty,
    utterances,
)
from stratagem.recipes.agents.anchors import *  # noqa: F403
from stratagem.recipes.agents.beliefs import *  # noqa: F403
from stratagem.recipes.agents.contexts import *  # noqa: F403
from stratagem.recipes.agents.costs import *  # noqa: F403
from stratagem.recipes.agents.delegation import *  # noqa: F403
from stratagem.recipes.agents.documents import *  # noqa: F403
from stratagem.recipes.agents.execution import *  # noqa: F403
from stratagem.recipes.agents.helped import *  # noqa: F403
from stratagem.recipes.agents.hierarchy import *  # noqa: F403
from stratagem.recipes.agents.orchestration import *  # noqa: F403
from stratagem.recipes.agents.planning import *  # noqa: F403
from stratagem.recipes.agents.progress import *  # noqa: F403
from stratagem.recipes.agents.replayed import *  # noqa: F403
from stratagem.recipes.agents.rounds import *  # noqa: F403
from stratagem.recipes.agents.teams import *  # noqa: F403
from stratagem.recipes.agents.tools import *  # noqa: F403
from stratagem.recipes.agents.turns import *  # noqa: F403
from stratagem.recipes.agents.uncertainty import *  # noqa: F403
from stratagem.recipes.agents.utterances import *  # noqa: F403

__all__: list[str] = []
__all__ += anchors.__all__
__all__ += beliefs.__all__
__all__ += contexts.__all__
__all__ += costs.__all__
__all__ += delegation.__all__
__all__ += documents.__all__
__all__ += execution.__all__
__all__ += helped.__all__
__all__ += hierarchy.__all__
__all__ += orchestration.__all__
__all__ += planning.__all__
__all__ += progress.__all__
__all__ += replayed.__all__
__all__ += rounds.__all__
__all__ += teams.__all__
__all__ += tools.__all__
__all__ += turns.__all__
__all__ += uncertainty.__all__
__all__ += utterances.__all__
