"""Changes of a recipe's knobs over a run."""

from stratagem.schedules.decays import PhasedDecay
from stratagem.schedules.probes import GradientProbe, MetaWeight
from stratagem.schedules.ramps import LinearRamp, Switch

__all__ = [
    "GradientProbe",
    "LinearRamp",
    "MetaWeight",
    "PhasedDecay",
    "Switch",
]
