"""Policies made of others: anchors that log-ratios are taken to, and opponents."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.experience import Experience
from stratagem.parts import Mixture


@dataclass(frozen=True)
class GeometricMixture(Mixture):
    """``log q = (1 - r - p) log pi_old + r log pi_ref + p log pi_previous`` of each token, ``r`` and ``p`` the weights.

    What log-ratios are taken to, and what opponents are taken for. ``pi_old`` is the policy the update starts from (or
    the recipe's proximal), ``pi_ref`` the frozen reference, ``pi_previous`` the policy the update before started from.
    Summed over an answer it is the log-probability of the mixture up to a constant of the prompt, which cancels where
    the answers of a prompt are compared. Weights may be negative: then it is an extrapolation.
    """

    reference: FiniteFloat = 0.0
    previous: FiniteFloat = 0.0

    def needs(self) -> frozenset[str]:
        read = {"ref_logp": self.reference, "previous_logp": self.previous}
        return frozenset(name for name, weight in read.items() if weight)

    def logp(self, old: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, " tokens"]:
        """``log q`` of every token, given ``log pi_old``."""
        found = (1 - self.reference - self.previous) * old
        for name, weight in (("ref_logp", self.reference), ("previous_logp", self.previous)):
            if weight:
                other = getattr(x, name)
                if other is None:
                    raise ValueError(f"a mixture with weight {weight:g} on {name} needs x.{name}")
                found = found + weight * other
        return found
