"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.branching import AtTurns, Branching, OfBest
from stratagem.sampling.calls import BeforeFailedCall, CallsCarriedOut
from stratagem.sampling.curricula import Domains, Learnability, Shuffled, SuccessBand
from stratagem.sampling.downsampling import DecisiveTokens, MostVariedCredit
from stratagem.sampling.guided import Guided, Prefix, minimal_prefixes, prefix_lengths
from stratagem.sampling.improving import History, Improving
from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.nonsense import nonsense
from stratagem.sampling.refill import Kept, kept_groups
from stratagem.sampling.replay import RecentBatches, SuccessReplay
from stratagem.sampling.resampling import Regrouped, Resampled, regrouped
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
from stratagem.sampling.tempering import EntropyTempering

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
    "Domains",
    "DrawnContexts",
    "DynamicSampling",
    "EntropyTempering",
    "Guided",
    "History",
    "Improving",
    "Kept",
    "Learnability",
    "Likelihood",
    "Masked",
    "MaskedElbo",
    "MostVariedCredit",
    "OfBest",
    "OneStep",
    "Planned",
    "Prefix",
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
    "Untruncated",
    "Views",
    "Windows",
    "kept_groups",
    "minimal_prefixes",
    "nonsense",
    "prefix_lengths",
    "regrouped",
]
