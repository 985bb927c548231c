"""What to roll out and what to keep of it."""

from stratagem.sampling.samplers import Demonstrations, DynamicSampling, Rollouts, Segments
from stratagem.sampling.selections import AboveReturn, Masked, Untruncated

__all__ = ["AboveReturn", "Demonstrations", "DynamicSampling", "Masked", "Rollouts", "Segments", "Untruncated"]
