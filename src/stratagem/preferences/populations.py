"""Tabular solvers with more than two players: a population of past policies, or an oracle for each player."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.games import check_policy
from stratagem.preferences.measures import win_rates
from stratagem.preferences.oracles import check_wins
from stratagem.preferences.solvers import Asked, LogPolicies, Solver, mirror_step, mixture


@dataclass(frozen=True)
class MNPO(Solver):
    """``pi prop mu^r prod_j pi_(t-j)^((1 - r) w_j) exp(P(y > pi_t) / eta)``: past policies as opponents.

    Time-dependent MNPO (arXiv 2509.23102). With one share it is :class:`~stratagem.preferences.solvers.INPO` of
    strength ``r eta``; where it stays is the same for all shares, the Nash policy regularised with ``r eta``. Policies
    before the first are the first.

    inverse_step: ``eta``.  reference: ``r``.  shares: ``w``, in proportion, of ``pi_t, pi_(t-1), ...``; of ``n``
    players there are ``n - 1``.
    against: whom win rates are against: the ``last`` policy, which is all that labels of its own answers can tell, or
    the ``population``, ``sum_j w_j P(y > pi_(t-j))``, as the game of ``n`` players is defined.
    """

    inverse_step: Annotated[float, Gt(0)]
    reference: Annotated[float, Ge(0), Le(1)] = 1 / 3
    shares: tuple[Annotated[float, Ge(0)], ...] = (1.0, 1.0)
    against: Literal["last", "population"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not sum(self.shares) > 0:
            raise InputError(f"{type(self).__name__}: shares = {self.shares}: at least one must be above 0")

    def begin(self, policy: LogPolicies) -> Tensor:
        return torch.stack([policy] * len(self.shares))

    def follow(self, opponent: Tensor, before: LogPolicies, policy: LogPolicies) -> Tensor:
        return torch.cat([policy.unsqueeze(0), opponent[:-1]])

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        weights = [share / sum(self.shares) for share in self.shares]
        past = [((1 - self.reference) * weight, logp) for weight, logp in zip(weights, opponent, strict=True)]
        if self.against == "last":
            won = asked(policy)
        else:
            won = torch.stack([w * asked(o) for w, o in zip(weights, opponent, strict=True) if w]).sum(0)
        return mirror_step(mixture([(self.reference, reference), *past]), won / self.inverse_step)


def solve_players(
    wins: Float64[Tensor, "players *games responses responses"],
    reference: Float64[Tensor, "*games responses"],
    iterations: int,
    inverse_step: float,
    share: float = 1 / 3,
) -> Float64[Tensor, "iterations players *games responses"]:
    """Every player's policies, from the reference on, when each has an oracle of its own and meets the others.

    Heterogeneous MNPO: ``pi_i prop mu^r (prod_(j != i) pi_j)^((1 - r) / (n - 1)) exp(mean_(j != i) P_i(y > pi_j) /
    eta)``, all at once. Nothing is proved of where it leads; players that share an oracle stay alike.

    inverse_step: ``eta``, above 0.  share: ``r``, in [0, 1].  Raises :class:`InputError` for fewer than two players.
    """
    players = len(wins)
    if players < 2:
        raise InputError(f"a game of several players needs at least 2 oracles, not {players}")
    if not inverse_step > 0 or not 0 <= share <= 1:
        raise InputError(f"inverse_step = {inverse_step}, share = {share}: must be above 0, and in [0, 1]")
    check_wins(wins)
    check_policy(reference, "reference")
    anchor = reference.double().expand(wins.shape[1:-1]).log()
    policies = torch.stack([anchor] * players)
    path = [policies.exp()]
    for _ in range(iterations):
        others = [[j for j in range(players) if j != i] for i in range(players)]
        won = [
            torch.stack([win_rates(wins[i], policies[j].exp()) for j in them]).mean(0) for i, them in enumerate(others)
        ]
        bases = [
            mixture([(share, anchor), *(((1 - share) / (players - 1), policies[j]) for j in them)]) for them in others
        ]
        policies = mirror_step(torch.stack(bases), torch.stack(won) / inverse_step)
        path.append(policies.exp())
    return torch.stack(path)
