"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

from stratagem.recipes.reasoning import conditional
from stratagem.recipes.reasoning.conditional import *  # noqa: F403

__all__: list[str] = []
__all__ += conditional.__all__
