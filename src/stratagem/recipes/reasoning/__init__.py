"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

from stratagem.recipes.reasoning import sampled
from stratagem.recipes.reasoning.sampled import *  # noqa: F403

__all__: list[str] = []
__all__ += sampled.__all__
