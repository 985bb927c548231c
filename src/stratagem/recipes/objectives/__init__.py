"""Recipes that change the objective: ratios, gates, trust regions, off-policy repair, losses of another shape."""

__all__: list[str] = []
