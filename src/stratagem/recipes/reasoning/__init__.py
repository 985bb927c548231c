"""Recipes for single answers that can be verified: advantages, entropy, sampling, search."""

__all__: list[str] = []
