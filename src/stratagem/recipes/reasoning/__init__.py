"""Recipes for single answers that can be verified: advantages, entropy, what to learn from, rewards on one scale."""

from stratagem.recipes.reasoning import (
    budgets,
    conditional,
    entropies,
    formats,
    function_calls,
    guided,
    heterogeneous,
    iteration,
    latent,
    long_context,
    normalized,
    planning,
    sampled,
    transported,
    tree_rollouts,
    vectors,
)
from stratagem.recipes.reasoning.budgets import *  # noqa: F403
from stratagem.recipes.reasoning.conditional import *  # noqa: F403
from stratagem.recipes.reasoning.entropies import *  # noqa: F403
from stratagem.recipes.reasoning.formats import *  # noqa: F403
from stratagem.recipes.reasoning.function_calls import *  # noqa: F403
from stratagem.recipes.reasoning.guided import *  # noqa: F403
from stratagem.recipes.reasoning.heterogeneous import *  # noqa: F403
from stratagem.recipes.reasoning.iteration import *  # noqa: F403
from stratagem.recipes.reasoning.latent import *  # noqa: F403
from stratagem.recipes.reasoning.long_context import *  # noqa: F403
from stratagem.recipes.reasoning.normalized import *  # noqa: F403
from stratagem.recipes.reasoning.planning import *  # noqa: F403
from stratagem.recipes.reasoning.sampled import *  # noqa: F403
from stratagem.recipes.reasoning.transported import *  # noqa: F403
from stratagem.recipes.reasoning.tree_rollouts import *  # noqa: F403
from stratagem.recipes.reasoning.vectors import *  # noqa: F403

__all__: list[str] = []
__all__ += budgets.__all__
__all__ += conditional.__all__
__all__ += entropies.__all__
__all__ += formats.__all__
__all__ += function_calls.__all__
__all__ += guided.__all__
__all__ += heterogeneous.__all__
__all__ += iteration.__all__
__all__ += latent.__all__
__all__ += long_context.__all__
__all__ += normalized.__all__
__all__ += planning.__all__
__all__ += sampled.__all__
__all__ += transported.__all__
__all__ += tree_rollouts.__all__
__all__ += vectors.__all__
