"""Recipes of games, of teams and of many tasks, a file per theme."""

from stratagem.recipes.games import cooperative, dependent, hierarchies, navigation, openended, relational, values
from stratagem.recipes.games.cooperative import *  # noqa: F403
from stratagem.recipes.games.dependent import *  # noqa: F403
from stratagem.recipes.games.hierarchies import *  # noqa: F403
from stratagem.recipes.games.navigation import *  # noqa: F403
from stratagem.recipes.games.openended import *  # noqa: F403
from stratagem.recipes.games.relational import *  # noqa: F403
from stratagem.recipes.games.values import *  # noqa: F403

__all__: list[str] = []
__all__ += cooperative.__all__
__all__ += dependent.__all__
__all__ += openended.__all__
__all__ += navigation.__all__
__all__ += hierarchies.__all__
__all__ += relational.__all__
__all__ += values.__all__
