"""Latent states of reasoning steps: what a step is, which state is likely to follow, and what that explains."""

from stratagem.latent.bound import elbo, exact_posterior, log_likelihood, mean_field
from stratagem.latent.encoder import LatentStates, step_features
from stratagem.latent.fitting import Trace, expected_transitions, fit
from stratagem.latent.transitions import DirichletPolicy

__all__ = [
    "DirichletPolicy",
    "LatentStates",
    "Trace",
    "elbo",
    "exact_posterior",
    "expected_transitions",
    "fit",
    "log_likelihood",
    "mean_field",
    "step_features",
]
