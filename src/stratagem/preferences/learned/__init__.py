"""Learning from people: rewards from comparisons or scores, users who differ, and policies made from what is good."""

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
from stratagem.preferences.learned.semi_policy import SemiPolicy, semi_policy_loss
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
    "SemiPolicy",
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
    "semi_policy_loss",
    "variance_information",
    "weighted_cloning",
]
