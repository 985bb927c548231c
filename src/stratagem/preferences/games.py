"""Symmetric games on preferences, many at once: float64 [games, responses, responses], ``wins[i, j] = P(i > j)``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.oracles import check_wins, preferred


def bradley_terry(
    scores: Float[Tensor, "*games responses"], temperature: float = 1.0
) -> Float64[Tensor, "*games responses responses"]:
    """``sigmoid((s_i - s_j) / temperature)``; a temperature of 0 prefers the better one for sure."""
    scores = scores.double()
    return preferred(scores.unsqueeze(-1) - scores.unsqueeze(-2), temperature)


def cyclic(responses: int = 3, strength: float = 1.0) -> Float64[Tensor, "responses responses"]:
    """Rock, paper, scissors and its like: each beats the ``(n - 1) / 2`` responses after it, and loses to the others.

    A winner has probability ``(1 + strength) / 2``. The minimax winner is uniform. Raises :class:`InputError` for an
    even number of responses, and a strength that is not in [0, 1].
    """
    if responses < 1 or responses % 2 == 0:
        raise InputError(
            f"cyclic preferences: responses = {responses}: must be odd, or some would win more than others"
        )
    if not 0 <= strength <= 1:
        raise InputError(f"cyclic preferences: strength = {strength}: must be in [0, 1]")
    place = torch.arange(responses)
    ahead = (place - place.unsqueeze(1)) % responses
    sign = torch.where(ahead == 0, 0, torch.where(ahead <= responses // 2, 1, -1))
    return 0.5 + 0.5 * strength * sign.double()


def random_games(
    games: int, responses: int, source: torch.Generator, certain: bool = False
) -> Float64[Tensor, "games responses responses"]:
    """Skew-symmetric at random: ``P(i > j)`` uniform in [0, 1], or, if ``certain``, 0 or 1. Most have cycles."""
    drawn = torch.rand(games, responses, responses, generator=source, dtype=torch.float64)
    above = (drawn.round() if certain else drawn).triu(1)
    return above + (1 - above).mT.tril(-1) + 0.5 * torch.eye(responses, dtype=torch.float64)


def games_with_winner(
    winner: Float[Tensor, "games responses"], source: torch.Generator
) -> Float64[Tensor, "games responses responses"]:
    """Intransitive games at random whose minimax winner is ``winner``: every response wins half the time against it.

    A random skew-symmetric ``S`` is made so that ``S p = 0`` by ``S - (S p) 1' + 1 (S p)'``, and scaled into
    [-1/2, 1/2]. The winner is the only one where ``S`` has no other null vector (an odd number of responses, of
    which each has a positive probability).
    """
    winner = winner.double()
    check_policy(winner, "winner")
    skew = random_games(len(winner), winner.shape[1], source) - 0.5
    gain = (skew @ winner.unsqueeze(-1)).squeeze(-1)
    skew = skew - gain.unsqueeze(-1) + gain.unsqueeze(-2)
    largest = skew.abs().amax((-2, -1), keepdim=True)
    return 0.5 + 0.5 * skew / torch.where(largest > 0, largest, 1.0)


def noisy(wins: Float64[Tensor, "*games r r"], flip: float) -> Float64[Tensor, "*games r r"]:
    """``(1 - 2 flip) P + flip``. Raises :class:`InputError` unless ``flip`` is in [0, 1/2]."""
    if not 0 <= flip <= 0.5:
        raise InputError(f"noisy preferences: flip = {flip}: must be in [0, 0.5]")
    return (1 - 2 * flip) * wins + flip


def population(
    members: Sequence[Float64[Tensor, "*games r r"]], shares: Sequence[float] = ()
) -> Float64[Tensor, "*games r r"]:
    """``sum_k w_k P_k``: what a member drawn by these shares (equal ones: ()) prefers."""
    if not members or (shares and len(shares) != len(members)) or any(share <= 0 for share in shares):
        raise InputError(
            f"population: shares = {list(shares)}: must be one, above 0, for each of {len(members)} members"
        )
    weights = torch.tensor(shares or [1.0] * len(members), dtype=torch.float64)
    return torch.einsum("k,k...->...", weights / weights.sum(), torch.stack(list(members)))


def votes(
    wins: Float64[Tensor, "games r r"],
    first: Int[Tensor, "games pairs"],
    second: Int[Tensor, "games pairs"],
    source: torch.Generator,
) -> Bool[Tensor, "games pairs"]:
    """One comparison of each pair, drawn: True where the first was preferred."""
    check_wins(wins)
    game = torch.arange(len(wins)).unsqueeze(1)
    chance = wins[game, first, second]
    return torch.rand(chance.shape, generator=source, dtype=torch.float64) < chance


def check_policy(policy: Float64[Tensor, "*games responses"], who: str) -> None:
    """Raise :class:`InputError` unless each row is a probability distribution."""
    if not bool((policy >= 0).all()) or not bool(((policy.sum(-1) - 1).abs() < 1e-6).all()):
        raise InputError(f"{who}: must be probabilities that add up to 1")
