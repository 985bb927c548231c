"""The few tokens that move the entropy most, found by how likelihood and advantage vary together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience, PolicyOutput
from stratagem.masking import only
from stratagem.objectives.regularizers import KL
from stratagem.parts import Correction, Regularizer
from stratagem.seeding import uniform

_STREAM = 2**61
"""Where the counters of these draws begin, away from those of other parts that draw from a trajectory's seed."""


def token_covariance(x: Experience) -> Float[Tensor, " tokens"]:
    """``c_t = (A_t - mean A) (log pi(a_t) - mean log pi)`` of every token of a whole batch; 0 where it may not train.

    Their mean is the covariance, which is what the entropy of a softmax policy falls by (arXiv 2505.22617). Means are
    over the tokens that may train, and ``pi`` is the policy the update starts from: ``old_logp``, or where that is not
    noted and the policy therefore has not moved, ``behavior_logp``.

    Raises ``ValueError`` when advantage or log-probabilities are missing or not finite.
    """
    logp = x.behavior_logp if x.old_logp is None else x.old_logp
    if logp is None or x.advantage is None:
        raise ValueError("the covariance of tokens needs x.advantage, and x.old_logp or x.behavior_logp")
    count = x.learnable_tokens.clamp(min=1)
    away = []
    for values in (x.advantage, logp):
        kept = x.of_learnable(values.detach())
        away.append(kept - (kept.sum(dtype=torch.float64) / count).to(kept.dtype))
    covariance = x.of_learnable(away[0] * away[1])
    if not bool(covariance.sum(dtype=torch.float64).isfinite()):
        raise ValueError("the covariance of tokens: an advantage or log-probability of the batch is not finite")
    return covariance


@dataclass(frozen=True)
class CovarianceMask(Correction):
    """0 at a few tokens, drawn at random from those with ``low < c_t < high``; 1 elsewhere (Clip-Cov).

    ``c_t`` is :func:`token_covariance`. Of the ``N`` tokens that may train ``max(least, floor(share N))`` are removed,
    or all in the band where there are fewer. What is removed is still counted by normalisers. The draw follows from the
    seeds of trajectories, so that it is the same however a batch is cut or ordered, and in every pass over it.

    Everything is of the policy the update starts from and of the whole batch (a mini-batch is a batch of its own). The
    released code goes by the current policy and by the micro-batch at hand, of which it passes over tokens that the
    clip holds already; where the update starts that is none.

    share: of the tokens, in [0, 1].  low, high: edges of the band.  least: tokens removed even from a small batch; the
    released code always removes one, which is much of a batch of ten. 0: none.

    Raises :class:`InputError` for a band without an inside; ``ValueError`` without ``x.seed``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp", "behavior_logp", "seed"})

    share: Annotated[float, Ge(0), Le(1)] = 2e-4
    low: float = 1.0
    high: float = 5.0
    least: Annotated[int, Ge(0)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high and not self.low == math.inf:
            raise InputError(f"covariance_mask.low = {self.low}: must be below high = {self.high}")

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        whole = x.whole
        kept = x.piece_of(whole.remembered(self, lambda: self._kept(whole)))
        return kept.to(out.logp.dtype)

    def _kept(self, x: Experience) -> Bool[Tensor, " tokens"]:
        covariance = token_covariance(x)
        band = torch.nonzero(x.learnable() & (covariance > self.low) & (covariance < self.high)).squeeze(1)
        count = _few(x, self.share, self.least)
        if len(band) > count:
            band = band[self._drawn(x, band).topk(count, largest=False).indices]
        kept = torch.ones(x.tokens, dtype=torch.bool, device=x.device)
        kept[band] = False
        return kept

    def _drawn(self, x: Experience, rows: Tensor) -> Float[Tensor, " rows"]:
        """A number in [0, 1) for tokens, by the seed of the trajectory and the place among those that may train."""
        if x.seed is None:
            raise ValueError("a covariance mask draws tokens at random and needs x.seed")
        trajectories = x.trajectory_of_token
        if x.mask is None:
            before, sizes = rows, trajectories.size()
        else:
            before, sizes = (x.mask.cumsum(0) - 1)[rows], trajectories.sum(x.mask.long())
        trajectory = trajectories.labels[rows]
        return uniform(x.seed[trajectory], _STREAM + before - (sizes.cumsum(0) - sizes)[trajectory])


@dataclass(frozen=True)
class AtLargestCovariance(Regularizer):
    """A penalty at the tokens with the largest ``c_t`` alone, 0 at the others (KL-Cov).

    ``c_t`` is :func:`token_covariance`; there are ``max(least, floor(share N))`` such tokens among the ``N`` that may
    train, fewer where ``c_t`` is not above 0: where nothing varies together no token is picked, while the released code
    picks some. Which they are is known as the update starts, of the whole batch (a mini-batch is a batch of its own);
    the released code goes by the current policy and the micro-batch.

    of: the penalty; by default ``|log pi - log pi_old|``, whose gradient is 0 until the policy has moved, so that it
    does nothing in the first of a batch's updates.  share: of the tokens, in [0, 1].  least: tokens it applies to even
    in a small batch.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"old_logp", "behavior_logp"})

    of: Regularizer = KL("abs", to="old")
    share: Annotated[float, Ge(0), Le(1)] = 2e-3
    least: Annotated[int, Ge(0)] = 1

    def __call__(self, out: PolicyOutput, x: Experience) -> Float[Tensor, " tokens"]:
        whole = x.whole
        key = (self.part_name(), self.share, self.least)
        return only(x.piece_of(whole.remembered(key, lambda: self._chosen(whole))), self.of(out, x))

    def _chosen(self, x: Experience) -> Bool[Tensor, " tokens"]:
        covariance = token_covariance(x)
        largest, rows = covariance.topk(min(_few(x, self.share, self.least), x.tokens))
        chosen = torch.zeros(x.tokens, dtype=torch.bool, device=x.device)
        chosen[rows[largest > 0]] = True
        return chosen


def _few(x: Experience, share: float, least: int) -> int:
    """``max(least, floor(share N))``; what only rounding keeps below a whole number is that number."""
    return max(least, math.floor(share * int(x.learnable_tokens) + 1e-9))
