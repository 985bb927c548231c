"""Optimizers as parts: how the weights of the policy move."""

from stratagem.optimizers.adam import AdamW
from stratagem.optimizers.muon import Muon, MuonAdamW, orthogonal_factor, rescale_to_spectral_size, spectral_size
from stratagem.optimizers.rmsprop import RMSprop

__all__ = [
    "AdamW",
    "Muon",
    "MuonAdamW",
    "RMSprop",
    "orthogonal_factor",
    "rescale_to_spectral_size",
    "spectral_size",
]
