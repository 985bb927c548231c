"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

from stratagem.recipes.objectives import (
    alignment,
    curvature,
    diffusion,
    gates,
    hybrid,
    losses,
    mixing,
    optimizers,
    reuse,
    stale,
    theory,
    trust_regions,
    views,
)
from stratagem.recipes.objectives.alignment import *  # noqa: F403
from stratagem.recipes.objectives.curvature import *  # noqa: F403
from stratagem.recipes.objectives.diffusion import *  # noqa: F403
from stratagem.recipes.objectives.gates import *  # noqa: F403
from stratagem.recipes.objectives.hybrid import *  # noqa: F403
from stratagem.recipes.objectives.losses import *  # noqa: F403
from stratagem.recipes.objectives.mixing import *  # noqa: F403
from stratagem.recipes.objectives.optimizers import *  # noqa: F403
from stratagem.recipes.objectives.reuse import *  # noqa: F403
from stratagem.recipes.objectives.stale import *  # noqa: F403
from stratagem.recipes.objectives.theory import *  # noqa: F403
from stratagem.recipes.objectives.trust_regions import *  # noqa: F403
from stratagem.recipes.objectives.views import *  # noqa: F403

__all__: list[str] = []
__all__ += alignment.__all__
__all__ += curvature.__all__
__all__ += diffusion.__all__
__all__ += gates.__all__
__all__ += hybrid.__all__
__all__ += losses.__all__
__all__ += mixing.__all__
__all__ += optimizers.__all__
__all__ += reuse.__all__
__all__ += stale.__all__
__all__ += theory.__all__
__all__ += trust_regions.__all__
__all__ += views.__all__
