"""What a reward of several components does: how far they are in each other's way, and what each really weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.lab.mdp import choice
from stratagem.lab.problems import Problem


@dataclass(frozen=True)
class Conflict:
    """What components of a reward cost each other: ``delta = sum_k w_k J_k(pi_k) - J(pi)``.

    ``pi_k`` is best for component ``k`` alone, ``pi`` for their weighted sum ``J = sum_k w_k J_k``. ``delta`` is never
    negative, and 0 exactly where one policy is best for every component that counts. Any policy ``p`` loses
    ``J(pi) - J(p) <= sum_k w_k (J_k(pi_k) - J_k(p))``. (The decomposition theorem of arXiv 2604.19857 was not
    available; this is a reconstruction that can be tested.)

    names, weights: of the components; weights must be at least 0.  joint: ``J(pi)``.  alone: ``J_k(pi_k)``. Both may be
    exact, as :func:`conflict` finds them, or estimated from runs.

    Raises :class:`InputError` for a weight below 0, for which the inequality does not hold.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    joint: float
    alone: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, weight in zip(self.names, self.weights, strict=True):
            if weight < 0:
                raise InputError(f"conflict: weight of reward {name!r} = {weight}: must be at least 0")

    @property
    def delta(self) -> float:
        """The conflict."""
        return self._weighted(self.alone) - self.joint

    def loss(self, earned: Sequence[float]) -> float:
        """``J(pi) - J(p)`` of a policy that earns this much of each component."""
        return self.joint - self._weighted(earned)

    def bound(self, earned: Sequence[float]) -> float:
        """``sum_k w_k (J_k(pi_k) - J_k(p))``, which the loss never exceeds: it is the loss and ``delta``."""
        return self._weighted(self.alone) - self._weighted(earned)

    def _weighted(self, values: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(self.weights, values, strict=True))


def conflict(problem: Problem) -> Conflict:
    """The exact conflict of a problem's components. Raises :class:`InputError` for a weight below 0."""
    weights = torch.tensor(problem.weights, dtype=torch.float64)
    joint = torch.einsum("c,c...->...", weights, problem.components).unsqueeze(0)
    policies = choice(problem.optimal_values(torch.cat([joint, problem.components])), 0.0)
    best = float(weights @ problem.returns(policies[0]))
    alone = [float(problem.returns(policy)[k]) for k, policy in enumerate(policies[1:])]
    return Conflict(problem.names, problem.weights, best, tuple(alone))


def effective_weights(x: Experience, correction: int = 1) -> dict[str, float]:
    """``w_k / std_k`` by column: what a column counts once each is standardised within its group.

    It is the mean over groups in which the column differs, 0 where there are none. ``correction`` is that of the
    standard deviation. Raises ``ValueError`` for a batch without reward columns.
    """
    if x.reward is None:
        raise ValueError("effective_weights needs x.reward")
    spread = x.group_of_trajectory.std(x.reward, correction).double()
    differ = spread > 0
    weights = torch.tensor(x.reward_weights, dtype=torch.float64, device=x.device)
    each = torch.where(differ, weights / spread.where(differ, 1.0), 0.0).sum(0) / differ.sum(0).clamp(min=1)
    return dict(zip(x.reward_names, each.tolist(), strict=True))
