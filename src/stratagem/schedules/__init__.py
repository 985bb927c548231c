"""Changes of a recipe's knobs over a run."""

from stratagem.schedules.ramps import LinearRamp, Switch

__all__ = [
    "LinearRamp",
    "Switch",
]
