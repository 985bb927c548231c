"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.budgets import Budgeted, allocate, group_gain
from stratagem.sampling.calls import BeforeFailedCall, CallsCarriedOut
from stratagem.sampling.curricula import Domains, Learnability, Shuffled, SuccessBand
from stratagem.sampling.downsampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.exploration import DependentRollouts, EpsilonGreedy
from stratagem.sampling.guided import Guided, Prefix, minimal_prefixes, prefix_lengths
from stratagem.sampling.improving import History, Improving
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.nodes import InformativeNodes, RandomNodes
from stratagem.sampling.nonsense import nonsense
from stratagem.sampling.online import BranchWhere, OnlineTree, PruneWhere, Range, Uncertainty
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
from stratagem.sampling.replay import RecentBatches, SuccessReplay, UniformReplay
from stratagem.sampling.resampling import Regrouped, Resampled, regrouped
from stratagem.sampling.samplers import (
    Candidates,
    Demonstrations,
    Denoising,
    DynamicSampling,
    Exploring,
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
    FirstRollouts,
    Masked,
    ShortestSuccess,
    ShownAtRandom,
    Untruncated,
)
from stratagem.sampling.tempering import EntropyTempering

__all__ = [
    "AboveReturn",
    "AtTurns",
    "BeforeFailedCall",
    "BelowReward",
    "BranchWhere",
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
    "DependentRollouts",
    "Disagreeing",
    "DivisibleTurns",
    "Domains",
    "DrawnContexts",
    "DynamicSampling",
    "EntropyTempering",
    "EpsilonGreedy",
    "Exploring",
    "Features",
    "FirstRollouts",
    "Guided",
    "History",
    "Improving",
    "InContext",
    "InformativeNodes",
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
    "OnlineTree",
    "Planned",
    "Predictor",
    "Prefix",
    "Promoting",
    "PruneWhere",
    "RandomNodes",
    "Range",
    "RecentBatches",
    "Regrouped",
    "Resampled",
    "Rollouts",
    "Segments",
    "ShortestSuccess",
    "ShownAtRandom",
    "Shuffled",
    "SuccessBand",
    "SuccessReplay",
    "TextFeatures",
    "Uncertainty",
    "UniformReplay",
    "Untruncated",
    "Views",
    "Windows",
    "allocate",
    "group_gain",
    "kept_groups",
    "minimal_prefixes",
    "nonsense",
    "prefix_lengths",
    "regrouped",
]
