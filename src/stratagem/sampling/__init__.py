"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.calls import BeforeFailedCall, CallsCarriedOut
from stratagem.sampling.curricula import Domains, Learnability, Shuffled, SuccessBand
from stratagem.sampling.downsampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.guided import Guided, Prefix, minimal_prefixes, prefix_lengths
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.nodes import InformativeNodes, RandomNodes
from stratagem.sampling.nonsense import nonsense
from stratagem.sampling.online import BranchWhere, OnlineTree, PruneWhere, Range, Uncertainty
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches, SuccessReplay
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
    "ByPassRate",
    "CallsCarriedOut",
    "Candidates",
    "ComparedRole",
    "DecisiveTokens",
    "Demonstrations",
    "Denoising",
    "Disagreeing",
    "DivisibleTurns",
    "Domains",
    "DrawnContexts",
    "DynamicSampling",
    "EntropyTempering",
    "Exploring",
    "FirstRollouts",
    "Guided",
    "InformativeNodes",
    "Kept",
    "Learnability",
    "Likelihood",
    "Masked",
    "MaskedElbo",
    "MostVariedCredit",
    "OfBest",
    "OneStep",
    "OnlineTree",
    "Planned",
    "Prefix",
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
    "Uncertainty",
    "Untruncated",
    "Views",
    "Windows",
    "kept_groups",
    "minimal_prefixes",
    "nonsense",
    "prefix_lengths",
    "regrouped",
]
