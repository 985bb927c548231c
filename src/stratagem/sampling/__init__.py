"""What to roll out, what to keep of it, and what to learn from again."""

from stratagem.sampling.replay import RecentBatches
from stratagem.sampling.samplers import Demonstrations, DynamicSampling, Rollouts, Segments, Windows
from stratagem.sampling.selections import AboveReturn

__all__ = ["AboveReturn", "Demonstrations", "DynamicSampling", "RecentBatches", "Rollouts", "Segments", "Windows"]
