"""Rewards learned from people: from comparisons or scores of segments, for one person or for people who differ."""

from stratagem.preferences.learned.bilevel import BilevelReward, Hypergradient, score_gradient
from stratagem.preferences.learned.calibration import Reliability, reliability, reliability_page
from stratagem.preferences.learned.queries import choose, mutual_information, variance_information
from stratagem.preferences.learned.residuals import (
    GradedResidual,
    Grades,
    ResidualPolicy,
    exponential_weights,
    grade,
    weighted_cloning,
)
from stratagem.preferences.learned.reward_models import (
    Comparisons,
    RewardModel,
    Scores,
    fit_comparisons,
    fit_scores,
)
from stratagem.preferences.learned.users import Belief, LatentUsers, UserModel

__all__ = [
    "Belief",
    "BilevelReward",
    "Comparisons",
    "GradedResidual",
    "Grades",
    "Hypergradient",
    "LatentUsers",
    "Reliability",
    "ResidualPolicy",
    "RewardModel",
    "Scores",
    "UserModel",
    "choose",
    "exponential_weights",
    "fit_comparisons",
    "fit_scores",
    "grade",
    "mutual_information",
    "reliability",
    "reliability_page",
    "score_gradient",
    "variance_information",
    "weighted_cloning",
]
