"""What an experience was worth."""

from stratagem.rewards.shaping import KLPenalty, OverlongPenalty
from stratagem.rewards.signals import Confidence, Correct, FormatOnly, Inverted, Majority, RandomSignal

__all__ = [
    "Confidence",
    "Correct",
    "FormatOnly",
    "Inverted",
    "KLPenalty",
    "Majority",
    "OverlongPenalty",
    "RandomSignal",
]
