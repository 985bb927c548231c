"""Rewards learned from people: from comparisons or scores of segments, for one person or for people who differ."""

from stratagem.preferences.learned.calibration import Reliability, reliability, reliability_page
from stratagem.preferences.learned.queries import choose, mutual_information, variance_information
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
    "Comparisons",
    "LatentUsers",
    "Reliability",
    "RewardModel",
    "Scores",
    "UserModel",
    "choose",
    "fit_comparisons",
    "fit_scores",
    "mutual_information",
    "reliability",
    "reliability_page",
    "variance_information",
]
