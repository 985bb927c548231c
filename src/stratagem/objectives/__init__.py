"""Losses and what they are made of: ratios, gates, corrections, aggregations, regularizers."""

from stratagem.objectives.aggregations import FixedLength, SequenceMean, SequenceSum, TokenMean
from stratagem.objectives.blend import Blend
from stratagem.objectives.corrections import MaskedImportance, TruncatedImportance
from stratagem.objectives.gates import Clip, ClippedWeight, LogLikelihood, Unclipped
from stratagem.objectives.implicit import ImplicitNegative
from stratagem.objectives.policy_gradient import PolicyGradient, ValueLoss
from stratagem.objectives.random_policy import RandomPolicyRegression
from stratagem.objectives.ratios import GeometricMeanRatio, ProductRatio, TokenRatio
from stratagem.objectives.regularizers import KL, EntropyBonus, kl_estimate
from stratagem.objectives.restricted import Restricted
from stratagem.objectives.unified import UnifiedGradient

__all__ = [
    "KL",
    "Blend",
    "Clip",
    "ClippedWeight",
    "EntropyBonus",
    "FixedLength",
    "GeometricMeanRatio",
    "ImplicitNegative",
    "LogLikelihood",
    "MaskedImportance",
    "PolicyGradient",
    "ProductRatio",
    "RandomPolicyRegression",
    "Restricted",
    "SequenceMean",
    "SequenceSum",
    "TokenMean",
    "TokenRatio",
    "TruncatedImportance",
    "Unclipped",
    "UnifiedGradient",
    "ValueLoss",
    "kl_estimate",
]
