"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.budgets import Budgeted, allocate, group_gain
from stratagem.sampling.calls import BeforeFailedCall, CallsCarriedOut
from stratagem.sampling.curricula import Domains, Learnability, Shuffled, SuccessBand
from stratagem.sampling.downsampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.predictors import (
    ContextMean,
    Features,
    InContext,
    Logistic,
    Neighbours,
    Predictor,
    TextFeatures,
)
from stratagem.sampling.promotion import Promoting
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches, SuccessReplay
from stratagem.sampling.samplers import (
    Candidates,
    Demonstrations,
    Denoising,
    DynamicSampling,
    Planned,
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
    "Budgeted",
    "ByPassRate",
    "CallsCarriedOut",
    "Candidates",
    "ComparedRole",
    "ContextMean",
    "DecisiveTokens",
    "Demonstrations",
    "Denoising",
    "Disagreeing",
    "DivisibleTurns",
    "Domains",
    "DrawnContexts",
    "DynamicSampling",
    "Features",
    "InContext",
    "Kept",
    "Learnability",
    "Likelihood",
    "Logistic",
    "Masked",
    "MaskedElbo",
    "MostVariedCredit",
    "Neighbours",
    "OfBest",
    "OneStep",
    "Planned",
    "Predictor",
    "Promoting",
    "RecentBatches",
    "Rollouts",
    "Segments",
    "ShortestSuccess",
    "ShownAtRandom",
    "Shuffled",
    "SuccessBand",
    "SuccessReplay",
    "TextFeatures",
    "Untruncated",
    "Views",
    "Windows",
    "allocate",
    "group_gain",
    "kept_groups",
]
