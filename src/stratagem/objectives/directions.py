"""Actions that are directions: the von Mises-Fisher distribution on the unit sphere, and the KL between two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.masking import only
from stratagem.parts import Regularizer

SHORTEST = 1e-8
"""A vector shorter than this has no direction."""

_MOST_TERMS = 10_000


def unit(vectors: Float[Tensor, "*rows dims"]) -> Float[Tensor, "*rows dims"]:
    """``v / |v|``. Raises ``ValueError`` for a vector shorter than 1e-8, which has no direction."""
    length = vectors.norm(dim=-1, keepdim=True)
    if bool((length < SHORTEST).any()):
        raise ValueError(f"a vector of length {float(length.min()):.2g} has no direction; at least {SHORTEST:g} is one")
    directions: Tensor = vectors / length
    return directions


@cache
def mean_cosine(dims: int, concentration: float) -> float:
    """``A_D(kappa) = I_{D/2}(kappa) / I_{D/2-1}(kappa)``: mean of ``<mu, z>`` over ``z ~ vMF(mu, kappa)``, ``D`` dims.

    About ``kappa / D`` for a small ``kappa`` and ``1 - (D - 1) / (2 kappa)`` for a large one; ``tanh(kappa)`` for
    ``D = 1``. By the recurrence of the quotients ``r_n = I_n / I_{n-1}``, ``r_n = kappa / (2 n + kappa r_{n+1})``, from
    an order where a bound of Amos (1974) is good enough down to ``n = D / 2``: no Bessel function is evaluated, so
    nothing overflows.

    Raises :class:`InputError` for ``dims`` below 1, or a concentration that is negative or not finite.
    """
    if dims < 1 or not 0 <= concentration < math.inf:
        raise InputError(f"mean_cosine({dims}, {concentration}): needs at least 1 dimension and a concentration >= 0")
    order = dims / 2
    terms = min(32 + int(8 * math.sqrt(concentration)), _MOST_TERMS)
    last = order + terms
    quotient = concentration / (last - 0.5 + math.hypot(last + 0.5, concentration))
    for step in range(terms - 1, -1, -1):
        quotient = concentration / (2 * (order + step) + concentration * quotient)
    return min(quotient, 1.0)


def direction_logp(
    mean: Float[Tensor, "*rows dims"], action: Float[Tensor, "*rows dims"], concentration: float
) -> Float[Tensor, "*rows"]:
    """``kappa <mu, z>``: log-density of a direction but for ``log C_D(kappa)``, which cancels in every ratio."""
    return concentration * (mean * action).sum(-1)


def direction_kl(
    mean: Float[Tensor, "*rows dims"], other: Float[Tensor, "*rows dims"], concentration: float
) -> Float[Tensor, "*rows"]:
    """``KL(vMF(mu, kappa) || vMF(mu', kappa)) = kappa A_D(kappa) (1 - <mu, mu'>)``, exactly."""
    factor = concentration * mean_cosine(mean.shape[-1], concentration)
    return factor * (1 - (mean * other).sum(-1))


def sample_directions(
    mean: Float[Tensor, "rows dims"], concentration: float, source: torch.Generator
) -> Float[Tensor, "rows dims"]:
    """One draw ``z ~ vMF(mu, kappa)`` for every mean direction, by Wood's rejection (1994), in float64 inside.

    Rows that are rejected are drawn again together; fewer than four in ten are, whatever ``dims`` and ``concentration``
    are. Drawn where ``source`` is and returned where ``mean`` is.
    """
    rows, dims = mean.shape
    centre = mean.detach().to(source.device, torch.float64)
    if dims == 1:
        same = torch.rand(rows, 1, generator=source, dtype=torch.float64) < 1 / (1 + math.exp(-2 * concentration))
        return torch.where(same, centre, -centre).to(mean)
    gap = _gap(rows, dims, concentration, source)
    across = torch.randn(rows, dims, generator=source, dtype=torch.float64)
    across = across - (across * centre).sum(-1, keepdim=True) * centre
    across = across / across.norm(dim=-1, keepdim=True)
    drawn = (1 - gap) * centre + (gap * (2 - gap)).sqrt() * across
    return unit(drawn).to(mean)


def _gap(rows: int, dims: int, concentration: float, source: torch.Generator) -> Float[Tensor, "rows 1"]:
    """``1 - <mu, z>`` of as many draws: the difference from 1 itself, since a large concentration leaves few digits."""
    free = dims - 1
    b = free / (2 * concentration + math.hypot(2 * concentration, free))
    peak = (1 - b) / (1 + b)
    most = concentration * peak + free * math.log1p(-peak * peak)
    gap = torch.empty(rows, dtype=torch.float64, device=source.device)
    open_rows = torch.arange(rows, device=source.device)
    while len(open_rows):
        # A coordinate of a uniform point on the sphere is 2 B - 1 with B ~ Beta((D - 1) / 2, (D - 1) / 2).
        points = torch.randn(len(open_rows), dims, generator=source, dtype=torch.float64, device=source.device)
        beta = (1 + points[:, 0] / points.norm(dim=-1)) / 2
        proposed = 2 * b * beta / (1 - (1 - b) * beta)
        height = concentration * (1 - proposed) + free * torch.log1p(-peak * (1 - proposed)) - most
        chance = torch.rand(len(open_rows), generator=source, dtype=torch.float64, device=source.device)
        taken = height >= chance.log()
        gap[open_rows[taken]] = proposed[taken]
        open_rows = open_rows[~taken]
    return gap.unsqueeze(1)


@dataclass(frozen=True)
class DirectionKL(Regularizer):
    """KL between von Mises-Fisher distributions of equal concentration, at latents; 0 at other tokens.

    ``exact``: ``kappa A_D(kappa) (1 - <mu, mu_ref>)``, the closed form, to the frozen reference.
    ``rollout``: ``kappa (1 - <mu, z>)``, what the code released with arXiv 2604.20328 computes: the direction that was
    taken in the reference's place and no factor ``A_D``. It pulls to the batch's own latents, and needs no reference.

    concentration: ``kappa`` of the policy; the world sets it.

    Raises ``ValueError`` when the policy's direction, or what it is compared with, is lacking.
    """

    concentration: Annotated[float, Ge(0)] = 0.01
    form: Literal["exact", "rollout"] = "exact"

    def needs(self) -> frozenset[str]:
        return frozenset({"output.direction", "ref_direction" if self.form == "exact" else "action"})

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        other = x.ref_direction if self.form == "exact" else x.action
        if out.direction is None or other is None:
            raise ValueError(f"direction_kl ({self.form}) needs {' and '.join(sorted(self.needs()))}")
        if x.latent is None:
            return out.logp.new_zeros(x.tokens)
        if self.form == "exact":
            penalty = direction_kl(out.direction, other, self.concentration)
        else:
            penalty = self.concentration * (1 - (out.direction * other).sum(-1))
        return only(x.latent, penalty)
