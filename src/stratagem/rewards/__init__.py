"""What an experience was worth."""

from stratagem.rewards.shaping import FormatGate, KLPenalty, OverlongPenalty, RewardWeights
from stratagem.rewards.signals import Confidence, Correct, FormatOnly, Inverted, Majority, RandomSignal

__all__ = [
    "Confidence",
    "Correct",
    "FormatGate",
    "FormatOnly",
    "Inverted",
    "KLPenalty",
    "Majority",
    "OverlongPenalty",
    "RandomSignal",
    "RewardWeights",
]
