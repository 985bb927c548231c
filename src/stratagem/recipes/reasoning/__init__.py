"""Recipes for single answers that can be verified: advantages, entropy, what to learn from, rewards on one scale."""

from stratagem.recipes.reasoning import (
    budgets,
    conditional,
    entropies,
    formats,
    normalized,
    sampled,
    transported,
)
from stratagem.recipes.reasoning.budgets import *  # noqa: F403
from stratagem.recipes.reasoning.conditional import *  # noqa: F403
from stratagem.recipes.reasoning.entropies import *  # noqa: F403
from stratagem.recipes.reasoning.formats import *  # noqa: F403
from stratagem.recipes.reasoning.normalized import *  # noqa: F403
from stratagem.recipes.reasoning.sampled import *  # noqa: F403
from stratagem.recipes.reasoning.transported import *  # noqa: F403

__all__: list[str] = []
__all__ += budgets.__all__
__all__ += conditional.__all__
__all__ += entropies.__all__
__all__ += formats.__all__
__all__ += normalized.__all__
__all__ += sampled.__all__
__all__ += transported.__all__
