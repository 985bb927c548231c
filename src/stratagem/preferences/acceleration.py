"""Iterated preference optimisation on tables, with Nesterov's extrapolation of log-policies between iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from stratagem.errors import InputError
from stratagem.preferences.solvers import Asked, Exact, LogPolicies, Solver, fitted_scores, mirror_step


@dataclass(frozen=True)
class APO(Solver):
    """``pi^_(t+1) prop pi_t exp(s / beta)``, then ``pi_(t+1) prop pi^_(t+1) (pi^_(t+1) / pi^_t)^alpha``.

    Accelerated preference optimisation (arXiv 2410.06293): each iteration is a proximal step from ``pi_t``, and an
    extrapolation is what the next one starts from. The policies of a run are ``pi^_t``; :meth:`follow` makes ``pi_t``
    of two of them. A momentum of 0 is the iterated method itself. Where ``s`` is a fixed reward, steps grow to
    ``1 / (1 - alpha)`` times their size, and no further.

    strength: ``beta``.  momentum: ``alpha``, in [0, 1).
    scores: ``fitted``: ``s`` is the Bradley-Terry model of pairs drawn from ``pi_t``, what DPO's loss anchored at
    ``pi_t`` is least at, for which ``asked`` must be :class:`~stratagem.preferences.solvers.Exact`; ``won``: win rates
    against ``pi_t``, the squared loss of SPPO, for preferences that no scores stand for.
    """

    strength: Annotated[float, Gt(0)]
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.3
    scores: Literal["fitted", "won"] = "fitted"

    def step(self, policy: LogPolicies, reference: LogPolicies, asked: Asked, opponent: Tensor) -> LogPolicies:
        if self.scores == "won":
            return mirror_step(opponent, asked(opponent) / self.strength)
        if not isinstance(asked, Exact):
            raise InputError(f"{type(self).__name__} fits scores to all pairs and needs the exact preferences")
        return mirror_step(opponent, fitted_scores(asked.wins, opponent.exp()) / self.strength)

    def follow(self, opponent: Tensor, before: LogPolicies, policy: LogPolicies) -> Tensor:
        if not self.momentum:
            return policy
        # A response that is never given has no ratio, and stays at 0.
        return torch.log_softmax(policy + self.momentum * (policy - before).nan_to_num(nan=0.0), -1)
