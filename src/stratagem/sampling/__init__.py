"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches
from stratagem.sampling.samplers import Demonstrations, Denoising, DynamicSampling, Rollouts, Segments, Windows
from stratagem.sampling.selections import (
    AboveReturn,
    ByPassRate,
    ComparedRole,
    DrawnContexts,
    Masked,
    ShortestSuccess,
    ShownAtRandom,
    Untruncated,
)

__all__ = [
    "AboveReturn",
    "AtTurns",
    "Branching",
    "ByPassRate",
    "ComparedRole",
    "Demonstrations",
    "Denoising",
    "DrawnContexts",
    "DynamicSampling",
    "Kept",
    "Likelihood",
    "Masked",
    "MaskedElbo",
    "OfBest",
    "OneStep",
    "RecentBatches",
    "Rollouts",
    "Segments",
    "ShortestSuccess",
    "ShownAtRandom",
    "Untruncated",
    "Views",
    "Windows",
    "kept_groups",
]
