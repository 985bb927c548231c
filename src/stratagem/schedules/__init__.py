"""Changes of a recipe's knobs over a run."""

from stratagem.schedules.ramps import LinearRamp

__all__ = ["LinearRamp"]
