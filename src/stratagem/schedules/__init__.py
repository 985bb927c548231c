"""Changes of a recipe's knobs over a run."""

from stratagem.schedules.decays import CosineRestarts, PhasedDecay
from stratagem.schedules.probes import GradientProbe, MetaWeight
from stratagem.schedules.ramps import Cycle, LinearRamp, Switch

__all__ = [
    "CosineRestarts",
    "Cycle",
    "GradientProbe",
    "LinearRamp",
    "MetaWeight",
    "PhasedDecay",
    "Switch",
]
