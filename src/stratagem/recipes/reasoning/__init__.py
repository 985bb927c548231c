"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

from stratagem.recipes.reasoning import transported
from stratagem.recipes.reasoning.transported import *  # noqa: F403

__all__: list[str] = []
__all__ += transported.__all__
