"""Policies made of others: anchors that log-ratios are taken to, and opponents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from jaxtyping import Float
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
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


@dataclass(frozen=True)
class PopulationMixture(Mixture):
    """``log q = r log pi_ref + (1 - r) sum_j w_j log pi_(t - j)``: the reference and a population of past policies.

    ``pi_t`` is the policy the update starts from (or the recipe's proximal), ``pi_(t - j)`` the one that the update
    ``j`` before started from; those before the first are the first. With one share it is a
    :class:`GeometricMixture` of two. Weights add up to 1, so that policies that are the same count as one would.

    shares: ``w_0, w_1, ...``, in proportion.  reference: ``r``.
    """

    shares: tuple[Annotated[FiniteFloat, Ge(0)], ...] = (1.0, 1.0)
    reference: Annotated[float, Ge(0), Le(1)] = 1 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not sum(self.shares) > 0:
            raise InputError(f"{self.part_name()}.shares = {self.shares}: at least one must be above 0")

    @property
    def past(self) -> int:
        return len(self.shares) - 1

    def needs(self) -> frozenset[str]:
        read = {"ref_logp": self.reference > 0, "past_logp": self.past > 0}
        return frozenset(name for name, wanted in read.items() if wanted)

    def logp(self, old: Float[Tensor, " tokens"], x: Experience) -> Float[Tensor, " tokens"]:
        weights = [(1 - self.reference) * share / sum(self.shares) for share in self.shares]
        found = weights[0] * old
        if self.past:
            if x.past_logp is None or x.past_logp.shape[1] < self.past:
                raise ValueError(f"a mixture of {self.past} past policies needs as many columns of x.past_logp")
            found = found + x.past_logp[:, : self.past] @ x.past_logp.new_tensor(weights[1:])
        if self.reference:
            if x.ref_logp is None:
                raise ValueError(f"a mixture with weight {self.reference:g} on ref_logp needs x.ref_logp")
            found = found + self.reference * x.ref_logp
        return found
