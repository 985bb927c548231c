"""Losses and what they are made of: ratios, gates, corrections, aggregations, regularizers."""

from stratagem.objectives.aggregations import FixedLength, LengthPower, SequenceMean, SequenceSum, TokenMean
from stratagem.objectives.bounded import BoundedRatio, best_bounded_policy
from stratagem.objectives.budgets import LevelBudgets, SharedBudget
from stratagem.objectives.corrections import DiscrepancyMask, MaskedImportance, TruncatedImportance
from stratagem.objectives.directions import (
    DirectionKL,
    direction_kl,
    direction_logp,
    mean_cosine,
    sample_directions,
    unit,
)
from stratagem.objectives.gates import Clip, ClippedWeight, LogLikelihood, TowardsTarget, Unclipped
from stratagem.objectives.implicit import ImplicitNegative
from stratagem.objectives.pairwise import PairwiseClip, PairwiseJointClip
from stratagem.objectives.penalty import Penalty
from stratagem.objectives.policy_gradient import PolicyGradient, ValueLoss
from stratagem.objectives.random_policy import RandomPolicyRegression
from stratagem.objectives.ratios import GeometricMeanRatio, ProductRatio, TokenRatio
from stratagem.objectives.regularizers import KL, EntropyBonus, kl_estimate
from stratagem.objectives.restricted import Restricted

__all__ = [
    "KL",
    "BoundedRatio",
    "Clip",
    "ClippedWeight",
    "DirectionKL",
    "DiscrepancyMask",
    "EntropyBonus",
    "FixedLength",
    "GeometricMeanRatio",
    "ImplicitNegative",
    "LengthPower",
    "LevelBudgets",
    "LogLikelihood",
    "MaskedImportance",
    "PairwiseClip",
    "PairwiseJointClip",
    "Penalty",
    "PolicyGradient",
    "ProductRatio",
    "RandomPolicyRegression",
    "Restricted",
    "SequenceMean",
    "SequenceSum",
    "SharedBudget",
    "TokenMean",
    "TokenRatio",
    "TowardsTarget",
    "TruncatedImportance",
    "Unclipped",
    "ValueLoss",
    "best_bounded_policy",
    "direction_kl",
    "direction_logp",
    "kl_estimate",
    "mean_cosine",
    "sample_directions",
    "unit",
]
