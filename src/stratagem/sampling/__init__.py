"""What to roll out and what to keep of it."""

from stratagem.sampling.samplers import Demonstrations, DynamicSampling, Rollouts, Segments
from stratagem.sampling.selections import AboveReturn, ByPassRate, ShownAtRandom

__all__ = [
    "AboveReturn",
    "ByPassRate",
    "Demonstrations",
    "DynamicSampling",
    "Rollouts",
    "Segments",
    "ShownAtRandom",
]
