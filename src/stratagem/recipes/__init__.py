"""Recipes: one short function per paper; a file per family, or a folder of themes for a large one."""

from stratagem.recipes import agents, baselines, games, objectives, preferences, reasoning
from stratagem.recipes.agents import *  # noqa: F403
from stratagem.recipes.baselines import *  # noqa: F403
from stratagem.recipes.games import *  # noqa: F403
from stratagem.recipes.objectives import *  # noqa: F403
from stratagem.recipes.preferences import *  # noqa: F403
from stratagem.recipes.reasoning import *  # noqa: F403

__all__: list[str] = []
__all__ += agents.__all__
__all__ += baselines.__all__
__all__ += games.__all__
__all__ += objectives.__all__
__all__ += preferences.__all__
__all__ += reasoning.__all__
