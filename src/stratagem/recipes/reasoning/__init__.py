"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

from stratagem.recipes.reasoning import entropies
from stratagem.recipes.reasoning.entropies import *  # noqa: F403

__all__: list[str] = []
__all__ += entropies.__all__
