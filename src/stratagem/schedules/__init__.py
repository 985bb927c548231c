"""Changes of a recipe's knobs over a run."""

from stratagem.schedules.decays import CosineRestarts, PhasedDecay
from stratagem.schedules.probes import GradientProbe, MetaWeight, Probe
from stratagem.schedules.ramps import Cycle, LinearRamp, Switch
from stratagem.schedules.weighing import FrontGain, GradientInfluence

__all__ = [
    "CosineRestarts",
    "Cycle",
    "FrontGain",
    "GradientInfluence",
    "GradientProbe",
    "LinearRamp",
    "MetaWeight",
    "PhasedDecay",
    "Probe",
    "Switch",
]
