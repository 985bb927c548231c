"""What an experience was worth."""

from stratagem.rewards.calls import BranchesPaidByCall, CappedWhereWrong
from stratagem.rewards.comparisons import WinRateReward
from stratagem.rewards.progress import TurnProgress
from stratagem.rewards.sets import BestCandidate
from stratagem.rewards.shaping import (
    CostPenalty,
    FormatGate,
    FormatPenalty,
    GradedOutcome,
    KLPenalty,
    LengthPlateau,
    NotedRewards,
    OverlongPenalty,
    RewardWeights,
)
from stratagem.rewards.signals import Confidence, Correct, FormatOnly, Inverted, Majority, RandomSignal
from stratagem.rewards.structure import PlanPenalty
from stratagem.rewards.teams import TeamReward
from stratagem.rewards.windows import WindowEntropyReward

__all__ = [
    "BestCandidate",
    "BranchesPaidByCall",
    "CappedWhereWrong",
    "Confidence",
    "Correct",
    "CostPenalty",
    "FormatGate",
    "FormatOnly",
    "FormatPenalty",
    "GradedOutcome",
    "Inverted",
    "KLPenalty",
    "LengthPlateau",
    "Majority",
    "NotedRewards",
    "OverlongPenalty",
    "PlanPenalty",
    "RandomSignal",
    "RewardWeights",
    "TeamReward",
    "TurnProgress",
    "WinRateReward",
    "WindowEntropyReward",
]
