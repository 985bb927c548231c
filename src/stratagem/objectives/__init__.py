"""Losses and what they are made of: ratios, gates, corrections, aggregations, regularizers."""

from stratagem.objectives.aggregations import (
    ByRole,
    CallShare,
    Credited,
    FixedLength,
    LengthPower,
    SequenceMean,
    SequenceSum,
    TokenMean,
    TurnMean,
    TurnSum,
)
from stratagem.objectives.blend import Blend
from stratagem.objectives.bounded import BoundedRatio, best_bounded_policy
from stratagem.objectives.bucketed import ControlledByDifficulty, difficulty
from stratagem.objectives.budgets import LevelBudgets, SharedBudget
from stratagem.objectives.comparisons import LogisticComparison, LogRatioRegression, ProspectUtility
from stratagem.objectives.corrections import DiscrepancyMask, MaskedImportance, TruncatedImportance
from stratagem.objectives.covariance import AtLargestCovariance, CovarianceMask, token_covariance
from stratagem.objectives.curvature import AdamStep, CurvatureMask, GradientStep, StepModel
from stratagem.objectives.directions import (
    DirectionKL,
    direction_kl,
    direction_logp,
    mean_cosine,
    sample_directions,
    unit,
)
from stratagem.objectives.entropy_bands import EntropyBand, EntropyRange
from stratagem.objectives.entropy_gates import EntropyClip, Redistributed
from stratagem.objectives.gates import (
    ByOrigin,
    CenteredClip,
    Clip,
    ClippedWeight,
    LogLikelihood,
    Saturating,
    TowardsTarget,
    Unclipped,
)
from stratagem.objectives.group_entropy import GroupEntropy
from stratagem.objectives.implicit import ImplicitNegative
from stratagem.objectives.latents import CodeInformation, TaskPrediction, information_estimate
from stratagem.objectives.masked_likelihood import MaskedLogLikelihood
from stratagem.objectives.negatives import EntropyHysteresis, SureNegatives
from stratagem.objectives.pairwise import PairwiseClip, PairwiseJointClip
from stratagem.objectives.penalty import Penalty
from stratagem.objectives.policy_gradient import PolicyGradient, ValueLoss
from stratagem.objectives.preference_models import AnswerComparison
from stratagem.objectives.proximal import Interpolated, IterationStart, MovingAverage, SamplingVersion
from stratagem.objectives.random_policy import RandomPolicyRegression
from stratagem.objectives.ratios import GeometricMeanRatio, ProductRatio, TokenRatio
from stratagem.objectives.regularizers import KL, BlendedPenalty, EntropyBonus, FullKL, Surprisal, kl_estimate
from stratagem.objectives.restricted import Restricted, RoleLosses
from stratagem.objectives.routing import RoutingReplay
from stratagem.objectives.soft import SoftImprovement
from stratagem.objectives.step_values import StepValueLoss
from stratagem.objectives.tails import TailConfidenceClip
from stratagem.objectives.temporal_difference import TemporalDifference
from stratagem.objectives.unified import UnifiedGradient
from stratagem.objectives.views import AnswerHead, InternalLayer, Perturbed, ResponseOnly

__all__ = [
    "KL",
    "AdamStep",
    "AnswerComparison",
    "AnswerHead",
    "AtLargestCovariance",
    "Blend",
    "BlendedPenalty",
    "BoundedRatio",
    "ByOrigin",
    "ByRole",
    "CallShare",
    "CenteredClip",
    "Clip",
    "ClippedWeight",
    "CodeInformation",
    "ControlledByDifficulty",
    "CovarianceMask",
    "Credited",
    "CurvatureMask",
    "DirectionKL",
    "DiscrepancyMask",
    "EntropyBand",
    "EntropyBonus",
    "EntropyClip",
    "EntropyHysteresis",
    "EntropyRange",
    "FixedLength",
    "FullKL",
    "GeometricMeanRatio",
    "GradientStep",
    "GroupEntropy",
    "ImplicitNegative",
    "InternalLayer",
    "Interpolated",
    "IterationStart",
    "LengthPower",
    "LevelBudgets",
    "LogLikelihood",
    "LogRatioRegression",
    "LogisticComparison",
    "MaskedImportance",
    "MaskedLogLikelihood",
    "MovingAverage",
    "PairwiseClip",
    "PairwiseJointClip",
    "Penalty",
    "Perturbed",
    "PolicyGradient",
    "ProductRatio",
    "ProspectUtility",
    "RandomPolicyRegression",
    "Redistributed",
    "ResponseOnly",
    "Restricted",
    "RoleLosses",
    "RoutingReplay",
    "SamplingVersion",
    "Saturating",
    "SequenceMean",
    "SequenceSum",
    "SharedBudget",
    "SoftImprovement",
    "StepModel",
    "StepValueLoss",
    "SureNegatives",
    "Surprisal",
    "TailConfidenceClip",
    "TaskPrediction",
    "TemporalDifference",
    "TokenMean",
    "TokenRatio",
    "TowardsTarget",
    "TruncatedImportance",
    "TurnMean",
    "TurnSum",
    "Unclipped",
    "UnifiedGradient",
    "ValueLoss",
    "best_bounded_policy",
    "difficulty",
    "direction_kl",
    "direction_logp",
    "information_estimate",
    "kl_estimate",
    "mean_cosine",
    "sample_directions",
    "token_covariance",
    "unit",
]
