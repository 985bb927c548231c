"""What to roll out and what to keep of it."""

from stratagem.sampling.likelihoods import Likelihood, MaskedElbo, OneStep, Views
from stratagem.sampling.samplers import Demonstrations, Denoising, DynamicSampling, Rollouts, Segments
from stratagem.sampling.selections import AboveReturn, Masked, Untruncated

__all__ = [
    "AboveReturn",
    "Demonstrations",
    "Denoising",
    "DynamicSampling",
    "Likelihood",
    "Masked",
    "MaskedElbo",
    "OneStep",
    "Rollouts",
    "Segments",
    "Untruncated",
    "Views",
]
