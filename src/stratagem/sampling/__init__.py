"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches
from stratagem.sampling.samplers import (
    Candidates,
    Demonstrations,
    Denoising,
    DynamicSampling,
    Rollouts,
    Segments,
    Windows,
)
from stratagem.sampling.selections import (
    AboveReturn,
    BelowReward,
    ByPassRate,
    DrawnContexts,
    Masked,
    ShortestSuccess,
    ShownAtRandom,
    Untruncated,
)

__all__ = [
    "AboveReturn",
    "BelowReward",
    "ByPassRate",
    "Candidates",
    "Demonstrations",
    "Denoising",
    "DrawnContexts",
    "DynamicSampling",
    "Kept",
    "Likelihood",
    "Masked",
    "MaskedElbo",
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
