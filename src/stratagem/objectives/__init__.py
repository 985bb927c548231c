"""Losses and what they are made of: ratios, gates, corrections, aggregations, regularizers."""

from stratagem.objectives.aggregations import FixedLength, SequenceMean, SequenceSum, TokenMean
from stratagem.objectives.bounded import BoundedRatio, best_bounded_policy
from stratagem.objectives.budgets import LevelBudgets, SharedBudget
from stratagem.objectives.corrections import DiscrepancyMask, MaskedImportance, TruncatedImportance
from stratagem.objectives.curvature import AdamStep, CurvatureMask, GradientStep, StepModel
from stratagem.objectives.gates import Clip, ClippedWeight, LogLikelihood, TowardsTarget, Unclipped
from stratagem.objectives.implicit import ImplicitNegative
from stratagem.objectives.policy_gradient import PolicyGradient, ValueLoss
from stratagem.objectives.random_policy import RandomPolicyRegression
from stratagem.objectives.ratios import GeometricMeanRatio, ProductRatio, TokenRatio
from stratagem.objectives.regularizers import KL, EntropyBonus, kl_estimate
from stratagem.objectives.restricted import Restricted

__all__ = [
    "KL",
    "AdamStep",
    "BoundedRatio",
    "Clip",
    "ClippedWeight",
    "CurvatureMask",
    "DiscrepancyMask",
    "EntropyBonus",
    "FixedLength",
    "GeometricMeanRatio",
    "GradientStep",
    "ImplicitNegative",
    "LevelBudgets",
    "LogLikelihood",
    "MaskedImportance",
    "PolicyGradient",
    "ProductRatio",
    "RandomPolicyRegression",
    "Restricted",
    "SequenceMean",
    "SequenceSum",
    "SharedBudget",
    "StepModel",
    "TokenMean",
    "TokenRatio",
    "TowardsTarget",
    "TruncatedImportance",
    "Unclipped",
    "ValueLoss",
    "best_bounded_policy",
    "kl_estimate",
]
