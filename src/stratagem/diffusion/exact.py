"""Likelihoods without error: every mask of an answer tried, so that the error of any estimate is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from stratagem.diffusion.inputs import DiffusionInputs
from stratagem.diffusion.policy import DiffusionPolicy
from stratagem.errors import InputError
from stratagem.sampling import Views

LONGEST = 12
"""Tokens of an answer whose 2^length masks may be tried."""

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class MaskTable:
    """``log pi(y_i | view)`` of answers of one length, for each of their 2^length masks.

    logp: in every mask ``m``, where bit ``i`` of ``m`` says that token ``i`` is hidden; of tokens that are not,
    whatever it holds is not read.

    Raises :class:`InputError` when there are not 2^length masks.
    """

    logp: Float[Tensor, "answers masks tokens"]

    def __post_init__(self) -> None:
        _, masks, length = self.logp.shape
        if masks != 1 << length:
            raise InputError(f"mask table: {length} tokens have {1 << length} masks, not {masks}")

    @property
    def length(self) -> int:
        """Tokens of each answer."""
        return self.logp.shape[2]

    @cached_property
    def hidden(self) -> Bool[Tensor, "masks tokens"]:
        """Which tokens every mask hides."""
        masks = torch.arange(1 << self.length, device=self.logp.device)
        return (masks.unsqueeze(1) >> torch.arange(self.length, device=masks.device)) % 2 == 1

    @cached_property
    def totals(self) -> Float64[Tensor, "answers masks"]:
        """``sum_{i hidden} log pi(y_i | view)`` of every mask."""
        return torch.where(self.hidden, self.logp.double(), 0.0).sum(-1)

    def by_count(self) -> Float64[Tensor, "answers counts"]:
        """The mean total of the masks that hide 1, 2, ..., length tokens."""
        count = self.hidden.sum(-1)
        return torch.stack([self.totals[:, count == hidden].mean(-1) for hidden in range(1, self.length + 1)], -1)

    def elbo(self) -> Float64[Tensor, " answers"]:
        """``int_0^1 f(t) dt = sum_c by_count_c / c``, as ``int_0^1 t^(c-1) (1-t)^(L-c) dt = 1 / (c binom(L, c))``."""
        counts = torch.arange(1, self.length + 1, device=self.logp.device)
        return (self.by_count() / counts).sum(-1)

    def integrand(self, time: float) -> Float64[Tensor, " answers"]:
        """``f(t) = E[(1/t) sum_{i hidden} log pi(y_i | y_t)]``: a polynomial in ``t`` of degree below the length."""
        count = self.hidden.sum(-1).double()
        # One factor t of the probability and the 1/t of the weight are gone, so that t = 0 is as good as any.
        weight = torch.where(count > 0, time ** (count - 1).clamp(min=0) * (1 - time) ** (self.length - count), 0.0)
        return (weight * self.totals).sum(-1)

    def log_likelihood(self) -> Float64[Tensor, " answers"]:
        """``log mean_order prod_i pi(y_i | tokens before it in the order)``: of answers revealed one by one at random.

        By recursion over subsets: with ``S`` hidden, ``p(S) = mean_{i in S} pi(y_i | S hidden) p(S without i)``.
        """
        logp, hidden = self.logp.double(), self.hidden
        found = logp.new_zeros(logp.shape[:2])
        for mask in range(1, 1 << self.length):
            last = torch.nonzero(hidden[mask]).squeeze(1)
            paths = logp[:, mask, last] + found[:, mask - (1 << last)]
            found[:, mask] = paths.logsumexp(-1) - math.log(len(last))
        return found[:, -1]

    def estimates(self, views: Views) -> Float64[Tensor, "answers repeats"]:
        """What these views, drawn for answers that fill their canvas, say of every answer."""
        mask = (views.hidden.long() << torch.arange(self.length, device=views.hidden.device)).sum(-1)
        return (self.totals[:, mask] * views.weight.double()).sum(-1)


@torch.no_grad()
def mask_table(
    policy: DiffusionPolicy,
    tokens: Int[Tensor, "answers positions"],
    response: Bool[Tensor, "answers positions"],
    temperature: float = 1.0,
) -> MaskTable:
    """The table of these answers under a policy, by one evaluation for each mask.

    tokens, response: as in :class:`DiffusionInputs`. Raises :class:`InputError` for answers of different lengths, or
    longer than 12 tokens.
    """
    lengths = response.sum(1).unique().tolist()
    if len(lengths) != 1 or not 1 <= lengths[0] <= LONGEST:
        raise InputError(f"mask table: answers have lengths {lengths}; it takes one length, from 1 to {LONGEST}")
    length = lengths[0]
    hidden = torch.arange(1 << length, device=tokens.device).unsqueeze(1) >> torch.arange(length, device=tokens.device)
    places = torch.nonzero(response)[:, 1].view(-1, 1, length).expand(-1, 1 << length, -1)
    masks = response.unsqueeze(1).expand(-1, 1 << length, -1).scatter(2, places, (hidden % 2 == 1).expand_as(places))
    said = []
    for rows in torch.arange(len(tokens)).split(max(1, ROWS_AT_ONCE >> length)):
        weight = torch.ones(masks[rows].shape[:2], device=tokens.device)
        judged = policy.token_logp(DiffusionInputs(tokens[rows], response[rows], masks[rows], weight), temperature)
        said.append(judged.gather(2, places[rows]))
    return MaskTable(torch.cat(said).double())
