"""Exact figures of policies in preference games: winners, gaps, distances, and win rates with intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from stratagem.errors import BrokenRunError, InputError
from stratagem.preferences.games import check_policy
from stratagem.preferences.oracles import check_wins

Wins = Float64[Tensor, "*games responses responses"]
Policies = Float64[Tensor, "*games responses"]
Figures = Float64[Tensor, "*games"]


# ---- without a reference --------------------------------------------------------------------------------------------


def win_rates(wins: Wins, opponent: Policies) -> Policies:
    """``P(y > pi')`` of every response."""
    return (wins @ opponent.unsqueeze(-1)).squeeze(-1)


def win_rate(wins: Wins, policy: Policies, opponent: Policies) -> Figures:
    """``P(pi > pi')``."""
    return (policy * win_rates(wins, opponent)).sum(-1)


def exploitability(wins: Wins, policy: Policies) -> Figures:
    """``max_y P(y > pi) - 1/2``, in [0, 1/2]: 0 for a minimax winner (von Neumann winner) and nobody else."""
    return win_rates(wins, policy).amax(-1) - 0.5


def duality_gap(wins: Wins, policy: Policies) -> Figures:
    """``max_pi' P(pi' > pi) - min_pi' P(pi > pi')``; by symmetry twice the exploitability."""
    return 2 * exploitability(wins, policy)


def minimax_winner(wins: Wins) -> Policies:
    """``argmax_pi min_y P(pi > y)``, a policy nobody beats, game by game by linear programming (HiGHS).

    Where there are several, one of them. Raises :class:`BrokenRunError` when the solver gives up.
    """
    from scipy.optimize import linprog  # takes a while, for which no listing of techniques should wait

    check_wins(wins)
    responses = wins.shape[-1]
    found = []
    for game in wins.reshape(-1, responses, responses).numpy():
        # Maximise v with v <= sum_i p_i P(i > y) for every y.
        result = linprog(
            np.r_[np.zeros(responses), -1.0],
            A_ub=np.c_[-game.T, np.ones(responses)],
            b_ub=np.zeros(responses),
            A_eq=np.r_[np.ones(responses), 0.0][None],
            b_eq=[1.0],
            bounds=[(0, 1)] * (responses + 1),
            method="highs",
        )
        if not result.success:
            raise BrokenRunError(f"minimax winner: HiGHS gave up: {result.message}")
        found.append(torch.from_numpy(result.x[:-1]).clamp(min=0))
    winners = torch.stack(found).view(wins.shape[:-1])
    return winners / winners.sum(-1, keepdim=True)


# ---- regularised towards a reference --------------------------------------------------------------------------------


def regularized_nash(
    wins: Wins, reference: Policies, strength: float, tolerance: float = 1e-12, most: int = 20_000
) -> Policies:
    """The Nash policy of ``P(pi > pi') - tau KL(pi || mu) + tau KL(pi' || mu)``: ``pi prop mu exp(P(y > pi) / tau)``.

    There is one (arXiv 2312.00886, section 4). Proximal steps come near it from anywhere, and Newton's method solves
    the fixed point, until no probability is ``tolerance`` off. A response the reference never gives has 0.

    strength: ``tau``, above 0.  most: steps before it gives up with a :class:`BrokenRunError`.
    """
    if not strength > 0 or not math.isfinite(strength):
        raise InputError(
            f"regularised Nash policy: strength = {strength}: must be above 0; without, see minimax_winner"
        )
    check_wins(wins)
    check_policy(reference, "reference")
    anchor = reference.double().log()
    logp = anchor.expand(wins.shape[:-1]).clone()
    # Extragradient steps of size 2 tau contract by 1 / (1 + 2 tau) whatever the game (NashMP in the solvers).
    share, gain = 2 * strength / (1 + 2 * strength), 2 / (1 + 2 * strength)
    for step in range(most):
        policy = logp.exp()
        if step % 50 == 0:
            policy = _newton(wins, anchor, policy, strength)
        error = (policy - _response(wins, anchor, policy, strength)).abs().amax()
        if float(error) <= tolerance:
            return policy / policy.sum(-1, keepdim=True)
        base = share * anchor + (1 - share) * logp
        half = torch.log_softmax(base + gain * win_rates(wins, logp.exp()), -1)
        logp = torch.log_softmax(base + gain * win_rates(wins, half.exp()), -1)
    raise BrokenRunError(
        f"regularised Nash policy: {most} steps with strength {strength} were not enough for {tolerance}"
    )


def _response(wins: Tensor, anchor: Tensor, policy: Tensor, strength: float) -> Tensor:
    """The best response under regularisation, ``mu exp(P(y > pi) / tau)``."""
    return torch.softmax(anchor + win_rates(wins, policy) / strength, -1)


def _newton(wins: Tensor, anchor: Tensor, policy: Tensor, strength: float, steps: int = 8) -> Tensor:
    """Newton's method on ``pi = response(pi)``."""
    identity = torch.eye(wins.shape[-1], dtype=wins.dtype)
    for _ in range(steps):
        answer = _response(wins, anchor, policy, strength)
        slope = (torch.diag_embed(answer) - answer.unsqueeze(-1) * answer.unsqueeze(-2)) @ wins / strength
        policy = policy - torch.linalg.solve(identity - slope, policy - answer)
    return policy


def regularized_gap(wins: Wins, policy: Policies, reference: Policies, strength: float) -> Figures:
    """``max_pi' P_tau(pi' > pi) - 1/2 = tau log sum_y mu(y) exp(P(y > pi) / tau) + tau KL(pi || mu) - 1/2``.

    At least 0, and 0 for the regularised Nash policy alone. strength: ``tau``, above 0.
    """
    best = torch.logsumexp(reference.log() + win_rates(wins, policy) / strength, -1)
    return strength * (best + kl(policy, reference)) - 0.5


def kl(policy: Policies, other: Policies) -> Figures:
    """``KL(pi || pi')`` in nats; infinite where ``pi'`` never gives what ``pi`` does."""
    terms: Tensor = torch.special.xlogy(policy, policy) - torch.special.xlogy(policy, other)
    return terms.sum(-1).clamp(min=0)


def span(policy: Policies, other: Policies) -> Figures:
    """``max - min`` of ``log pi - log pi'`` over the responses both may give."""
    apart = policy.log() - other.log()
    known = (policy > 0) & (other > 0)
    return apart.masked_fill(~known, -math.inf).amax(-1) - apart.masked_fill(~known, math.inf).amin(-1)


# ---- head to head ---------------------------------------------------------------------------------------------------


class WinRates(NamedTuple):
    """Share of comparisons that the policy of a row won against that of a column, and its 95 % Wilson interval."""

    rate: Float64[Tensor, "policies policies"]
    low: Float64[Tensor, "policies policies"]
    high: Float64[Tensor, "policies policies"]


def win_rate_matrix(won: Float64[Tensor, "policies policies"], compared: Int[Tensor, "policies policies"]) -> WinRates:
    """Win rates of policies against each other, from counts; a tie counts as half a win for both.

    won: comparisons the row won against the column; with ``won' + won = compared``, and ``compared`` symmetric.
    Where nothing was compared the rate is 1/2 and the interval [0, 1]. Raises :class:`InputError` for counts that
    contradict each other.
    """
    won, compared = won.double(), compared.double()
    if won.shape != compared.shape or won.ndim != 2 or won.shape[0] != won.shape[1]:
        raise InputError("win rates: won and compared must be square and of one shape, policy by policy")
    if bool((won < 0).any()) or not bool(torch.isclose(won + won.mT, compared).all()):
        raise InputError("win rates: what a row won and what it lost must add up to what was compared")
    shown = compared.clamp(min=1)
    rate = torch.where(compared > 0, won / shown, 0.5)
    z = 1.959963984540054
    middle = (rate + z * z / (2 * shown)) / (1 + z * z / shown)
    half = z / (1 + z * z / shown) * (rate * (1 - rate) / shown + z * z / (4 * shown * shown)).sqrt()
    low, high = (middle - half).clamp(min=0), (middle + half).clamp(max=1)
    return WinRates(rate, torch.where(compared > 0, low, 0.0), torch.where(compared > 0, high, 1.0))


def exact_win_rates(wins: Wins, policies: Float64[Tensor, "policies *games responses"]) -> Float64[Tensor, "p p"]:
    """``P(pi_row > pi_column)``, the mean over games: the limit of :func:`win_rate_matrix`."""
    return torch.stack([torch.stack([win_rate(wins, row, column).mean() for column in policies]) for row in policies])
