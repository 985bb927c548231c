"""Reasoning steps as latent states: features of a step's tokens, and the clusters they fall into."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratagem.errors import InputError


def step_features(hidden: Float[Tensor, "tokens width"], eigenvalues: int = 4) -> Float[Tensor, " features"]:
    """Mean of a step's token states, and the largest eigenvalues of their Gram matrix ``H H^T / tokens``.

    The spectrum says how the tokens spread, whatever their order. A step of fewer tokens than eigenvalues has zeros for
    the rest. Which features arXiv 2507.08182 takes was not available: these are a reconstruction.

    Raises :class:`InputError` for a step without tokens and for eigenvalues below 0.
    """
    if hidden.ndim != 2 or not len(hidden):
        raise InputError(f"step of shape {tuple(hidden.shape)}: must be (tokens, width) with at least one token")
    if eigenvalues < 0:
        raise InputError(f"step_features: eigenvalues = {eigenvalues}: must be at least 0")
    hidden = hidden.double()
    # The same non-zero spectrum, by the smaller of the two matrices.
    spectrum = torch.linalg.svdvals(hidden).square() / len(hidden)
    padded = torch.zeros(eigenvalues, dtype=hidden.dtype)
    padded[: len(spectrum)] = spectrum[:eigenvalues]
    return torch.cat([hidden.mean(0), padded])


@dataclass(frozen=True, eq=False)
class LatentStates:
    """``q(s | x) = softmax_k(-|e(x) - mu_k|^2 / tau)`` for a step with features ``e(x)``.

    centers: ``mu``, one row for each state.  temperature: ``tau``, above 0; small ones make it nearly certain.

    Raises :class:`InputError` for a temperature that is not above 0, and without centers.
    """

    centers: Float[Tensor, "states features"]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"latent_states.temperature = {self.temperature}: must be above 0")
        if self.centers.ndim != 2 or not len(self.centers):
            raise InputError(f"latent_states.centers of shape {tuple(self.centers.shape)}: must be (states, features)")

    @classmethod
    def fit(
        cls, features: Float[Tensor, "steps features"], states: int = 16, temperature: float = 1.0, seed: int = 0
    ) -> Self:
        """Centers by k-means, which seeds an empty cluster anew.

        With fewer different steps than ``states`` there are as many states as steps, and a warning. Needs scikit-learn.
        Raises :class:`InputError` where that is not installed, for no steps at all, and for states below 1.
        """
        try:
            from sklearn.cluster import KMeans
        except ImportError:
            raise InputError("latent states need scikit-learn: pip install 'stratagem[agents]'") from None
        if states < 1 or not len(features):
            raise InputError(f"latent_states: {states} states of {len(features)} steps: must be at least one of each")
        distinct = len(features.unique(dim=0))
        if distinct < states:
            warnings.warn(
                f"latent states: {distinct} different steps make {distinct} states, not {states}", stacklevel=2
            )
        found = KMeans(min(states, distinct), n_init=4, random_state=seed % 2**32).fit(features.double().numpy())
        return cls(torch.from_numpy(found.cluster_centers_).double(), temperature)

    def posterior(self, features: Float[Tensor, "*steps features"]) -> Float[Tensor, "*steps states"]:
        """``q(s | x)`` of every step."""
        apart = (features.unsqueeze(-2).double() - self.centers.double()).square().sum(-1)
        return torch.softmax(-apart / self.temperature, -1)

    def nearest(self, features: Float[Tensor, "*steps features"]) -> Int[Tensor, "*steps"]:
        """The likeliest state of every step."""
        return self.posterior(features).argmax(-1)
