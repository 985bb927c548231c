"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

from stratagem.recipes.reasoning import normalized
from stratagem.recipes.reasoning.normalized import *  # noqa: F403

__all__: list[str] = []
__all__ += normalized.__all__
