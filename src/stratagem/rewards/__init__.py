"""What an experience was worth."""

from stratagem.rewards.shaping import KLPenalty, OverlongPenalty

__all__ = ["KLPenalty", "OverlongPenalty"]
