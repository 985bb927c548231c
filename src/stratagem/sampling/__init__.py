"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.calls import BeforeFailedCall, CallsCarriedOut
from stratagem.sampling.downsampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.nodes import InformativeNodes, RandomNodes
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches, SuccessReplay
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
    ComparedRole,
    Disagreeing,
    DivisibleTurns,
    DrawnContexts,
    FirstRollouts,
    Masked,
    ShortestSuccess,
    ShownAtRandom,
    Untruncated,
)

__all__ = [
    "AboveReturn",
    "AtTurns",
    "BeforeFailedCall",
    "BelowReward",
    "Branching",
    "ByPassRate",
    "CallsCarriedOut",
    "Candidates",
    "ComparedRole",
    "DecisiveTokens",
    "Demonstrations",
    "Denoising",
    "Disagreeing",
    "DivisibleTurns",
    "DrawnContexts",
    "DynamicSampling",
    "FirstRollouts",
    "InformativeNodes",
    "Kept",
    "Likelihood",
    "Masked",
    "MaskedElbo",
    "MostVariedCredit",
    "OfBest",
    "OneStep",
    "RandomNodes",
    "RecentBatches",
    "Rollouts",
    "Segments",
    "ShortestSuccess",
    "ShownAtRandom",
    "SuccessReplay",
    "Untruncated",
    "Views",
    "Windows",
    "kept_groups",
]
