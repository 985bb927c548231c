"""Losses and what they are made of: ratios, gates, corrections, aggregations, regularizers."""

from stratagem.objectives.aggregations import FixedLength, SequenceMean, SequenceSum, TokenMean
from stratagem.objectives.corrections import MaskedImportance, TruncatedImportance
from stratagem.objectives.gates import Clip, ClippedWeight, LogLikelihood, Unclipped
from stratagem.objectives.masked_likelihood import MaskedLogLikelihood
from stratagem.objectives.policy_gradient import PolicyGradient, ValueLoss
from stratagem.objectives.proximal import Interpolated, MovingAverage, SamplingVersion
from stratagem.objectives.ratios import GeometricMeanRatio, ProductRatio, TokenRatio
from stratagem.objectives.regularizers import KL, EntropyBonus, kl_estimate
from stratagem.objectives.restricted import Restricted
from stratagem.objectives.routing import RoutingReplay

__all__ = [
    "KL",
    "Clip",
    "ClippedWeight",
    "EntropyBonus",
    "FixedLength",
    "GeometricMeanRatio",
    "Interpolated",
    "LogLikelihood",
    "MaskedImportance",
    "MaskedLogLikelihood",
    "MovingAverage",
    "PolicyGradient",
    "ProductRatio",
    "Restricted",
    "RoutingReplay",
    "SamplingVersion",
    "SequenceMean",
    "SequenceSum",
    "TokenMean",
    "TokenRatio",
    "TruncatedImportance",
    "Unclipped",
    "ValueLoss",
    "kl_estimate",
]
