"""How a next token is drawn: temperature, top-k, top-p, and random numbers that depend on nothing but their request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.parts import Tempering
from stratagem.seeding import uniform

# Uniform numbers are made for this many steps at a time.
_BLOCK = 64


@dataclass(frozen=True)
class SamplingParams:
    """How one turn is sampled.

    max_new_tokens: at least 1.
    temperature: divides the logits, above 0.
    top_k: keep the k likeliest tokens, 0 keeps all.
    top_p: then keep the smallest set of likeliest tokens that holds this much probability, in (0, 1].
    stop: strings that end the turn; the tokens that spell them stay part of what was sampled.
    stop_token_ids: tokens that end the turn, besides the tokenizer's end-of-sequence token.
    greedy: take the likeliest token; its log-probability is then 0, that of the distribution sampled from.
    tempering: what the temperature is multiplied by at each token; top_k and top_p cut what comes of it.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    greedy: bool = False
    tempering: Tempering | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not (0 < self.temperature < math.inf):
            raise InputError(
                f"temperature must be above 0 and finite, got {self.temperature} (greedy=True for the mode)"
            )
        if not (0 < self.top_p <= 1):
            raise InputError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise InputError(f"top_k must be at least 0, got {self.top_k}")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise InputError(f"stop must be a tuple of non-empty strings, got {self.stop!r}")


class Sampler:
    """Draws the next token of each of several requests, each with its own seed and parameters."""

    def __init__(self, params: Sequence[SamplingParams], seeds: Sequence[int], device: torch.device | str) -> None:
        self._seeds = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=device)
        self._temperature = torch.tensor([[1.0 if p.greedy else p.temperature] for p in params], device=device)
        self._top_k = torch.tensor([[p.top_k] for p in params], device=device)
        self._top_p = torch.tensor([[p.top_p] for p in params], device=device)
        self._greedy = torch.tensor([p.greedy for p in params], device=device)
        self._tempered = any(p.temperature != 1.0 and not p.greedy for p in params)
        self._temperings = _distinct([p.tempering for p in params if p.tempering is not None and not p.greedy])
        numbers = [next((n for n, t in enumerate(self._temperings) if t is p.tempering), -1) for p in params]
        self._tempering = torch.tensor(numbers, device=device)
        self._filtered = any((p.top_k > 0 or p.top_p < 1) and not p.greedy for p in params)
        self._some_greedy = any(p.greedy for p in params)
        self._uniforms = torch.empty(len(params), 0, device=device)

    def sample(
        self, logits: Float[Tensor, "requests vocabulary"], index: int
    ) -> tuple[Int[Tensor, " requests"], Float[Tensor, " requests"]]:
        """Token number ``index`` of every request, and its log-probability under the distribution it was drawn from."""
        logits = self.tempered(logits)
        if self._filtered:
            logits = keep_likeliest(logits, self._top_k, self._top_p)
        probabilities = torch.softmax(logits, dim=-1)
        tokens = inverse_cdf(probabilities, self._uniform(index))
        chosen = probabilities.gather(1, tokens.unsqueeze(1)).squeeze(1).log()
        if self._some_greedy:
            tokens = torch.where(self._greedy, logits.argmax(-1), tokens)
            chosen = chosen.masked_fill(self._greedy, 0.0)
        return tokens, chosen

    def tempered(self, logits: Float[Tensor, "requests vocabulary"]) -> Float[Tensor, "requests vocabulary"]:
        """Logits of what is drawn from, before it is cut."""
        if self._tempered:
            logits = logits / self._temperature
        for number, tempering in enumerate(self._temperings):
            logits = torch.where((self._tempering == number).unsqueeze(1), tempering.tempered(logits), logits)
        return logits

    def fork(self, rows: Int[Tensor, " forked"], seeds: Sequence[int]) -> None:
        """Go on with further requests, last, that are as these are, but with seeds of their own."""
        self.keep(torch.cat([torch.arange(len(self._seeds), device=rows.device), rows]))
        own = torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=self._seeds.device)
        self._seeds = torch.cat([self._seeds[: len(self._seeds) - len(rows)], own])
        self._uniforms = self._uniforms[:, :0]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Go on with these requests only, in this order."""
        for name in ("_seeds", "_temperature", "_tempering", "_top_k", "_top_p", "_greedy", "_uniforms"):
            setattr(self, name, getattr(self, name)[rows])

    def _uniform(self, index: int) -> Float[Tensor, " requests"]:
        if index % _BLOCK == 0 or not self._uniforms.shape[1]:
            first = index - index % _BLOCK
            steps = torch.arange(first, first + _BLOCK, device=self._seeds.device)
            self._uniforms = uniform(self._seeds.unsqueeze(1), steps)
        return self._uniforms[:, index % _BLOCK]


def keep_likeliest(
    logits: Float[Tensor, "requests vocabulary"], top_k: Int[Tensor, "requests 1"], top_p: Float[Tensor, "requests 1"]
) -> Float[Tensor, "requests vocabulary"]:
    """The logits with -inf for every token outside top-k (0: all), then outside the nucleus of mass ``top_p``.

    Equal logits are kept in vocabulary order; at least one token always remains.
    """
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    ranked = ranked.masked_fill((rank >= top_k) & (top_k > 0), float("-inf"))
    probability = torch.softmax(ranked, dim=-1)
    before = probability.cumsum(-1) - probability
    dropped: Bool[Tensor, "requests vocabulary"] = (before >= top_p) & (top_p < 1) & (rank > 0)
    return torch.empty_like(logits).scatter_(-1, order, ranked.masked_fill(dropped, float("-inf")))


def inverse_cdf(
    probabilities: Float[Tensor, "requests vocabulary"], uniforms: Float[Tensor, " requests"]
) -> Int[Tensor, " requests"]:
    """The first token whose cumulative probability, in vocabulary order, exceeds each uniform number."""
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    targets = uniforms.unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, targets, right=True).squeeze(1)


def _distinct(temperings: Sequence[Tempering]) -> list[Tempering]:
    """Each once: equal ones may remember different batches."""
    return list({id(tempering): tempering for tempering in temperings}.values())


def _signed(seed: int) -> int:
    """Any Python integer as the signed 64-bit integer with the same low bits."""
    return (seed + 2**63) % 2**64 - 2**63
