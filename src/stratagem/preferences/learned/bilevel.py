"""Reward design in two levels: what a change of the reward does to the policy that is trained on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Gt
from jaxtyping import Float64
from torch import Tensor
from torch.func import grad, hessian

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.validation import validate_fields

Vector = Float64[Tensor, " numbers"]

Lower = Callable[[Tensor, Tensor], Tensor]
"""``V(nu, theta)``: what the policy of parameters ``theta`` is trained to make large; twice differentiable."""

Upper = Callable[[Tensor, Tensor], Tensor]
"""``G(nu, theta)``: what the reward of parameters ``nu`` is designed to make small."""


class Hypergradient(NamedTuple):
    """``total = direct + implicit``, and what to know of it.

    direct: ``grad_nu G``, as if the policy stayed.  implicit: through the policy.
    unconverged: ``|grad_theta V|``. The implicit part is exact where it is 0, and off in proportion to it elsewhere.
    residual: of the linear system, relative; for ``identity``, which solves none, of the true system.
    """

    direct: Vector
    implicit: Vector
    unconverged: float
    residual: float

    @property
    def total(self) -> Vector:
        """Down which the reward's parameters go."""
        return self.direct + self.implicit


@paper(
    "2308.02585",
    title="PARL: A Unified Framework for Policy Alignment in Reinforcement Learning from Human Feedback",
    family="preferences",
    roles=("objective", "reward", "schedule"),
    year=2023,
    name="parl",
    tags=("reward.source.preferences", "reward.verifier.model"),
)
@dataclass(frozen=True)
class BilevelReward:
    """PARL: ``dG / dnu = grad_nu G - grad^2_(nu theta) V (grad^2_theta V)^-1 grad_theta G`` designs a reward ``r_nu``.

    The reward is designed, or learned from preferences, to make ``G(nu, theta*(nu))`` small, where the policy
    ``theta*(nu)`` makes ``V(nu, theta)`` large. Where the trajectories that ``G`` is about are the policy's own, the
    reward also decides which they are: the second term, which reward learning otherwise leaves out.

    solver: ``exact``: by the pseudo-inverse, as the softmax of a table has directions in which nothing changes;
    ``cg``: conjugate gradients on products with the Hessian, for as many parameters as there may be; ``identity``:
    ``I / damping`` in place of the inverse of ``-grad^2_theta V``, for which ``damping`` should be about the entropy's
    weight.
    damping: added to ``-grad^2_theta V`` by ``cg``, above 0. The exact solver has none; to it curvatures below 1e-10 of
    the largest are none.
    iterations: of conjugate gradients.  inner: steps of the policy before each step of the reward.
    policy_rate, reward_rate: of gradient ascent and descent.

    The two levels and the gradient are the paper's as others give them. The default numbers, the damping and both
    approximations are reconstructed.
    Raises :class:`InputError` for values out of range.
    """

    solver: Literal["exact", "cg", "identity"] = "exact"
    damping: Annotated[float, Gt(0)] = 1e-2
    iterations: Annotated[int, Gt(0)] = 50
    inner: Annotated[int, Gt(0)] = 10
    policy_rate: Annotated[float, Gt(0)] = 1.0
    reward_rate: Annotated[float, Gt(0)] = 1e-2

    def __post_init__(self) -> None:
        validate_fields(self, "parl")

    def hypergradient(
        self, upper: Upper, lower: Lower, nu: Vector, theta: Vector, *, through_policy: Vector | None = None
    ) -> Hypergradient:
        """How ``G`` changes with ``nu``, with the policy's parameters following.

        nu, theta: vectors; sizes must be what both functions take.
        through_policy: ``grad_theta G``, where it is estimated (:func:`score_gradient`); None: that of ``upper``.

        Raises :class:`InputError` where a derivative is not finite.
        """
        direct: Tensor = grad(upper, 0)(nu, theta)
        through = grad(upper, 1)(nu, theta) if through_policy is None else through_policy
        slope: Tensor = grad(lower, 1)(nu, theta)
        if not all(bool(each.isfinite().all()) for each in (direct, through, slope)):
            raise InputError("parl: the derivatives of both levels must be finite")
        solved, residual = self._solved(lower, nu, theta, through)
        # grad^2_(nu theta) V u is the gradient by nu of <grad_theta V, u>: no matrix is formed.
        implicit: Tensor = grad(lambda reward: (grad(lower, 1)(reward, theta) * solved).sum())(nu)
        return Hypergradient(direct, implicit, float(slope.norm()), residual)

    def step(
        self, upper: Upper, lower: Lower, nu: Vector, theta: Vector, *, implicit: bool = True
    ) -> tuple[Vector, Vector, Hypergradient]:
        """``inner`` steps of the policy from where it is, then one of the reward: new ``nu``, new ``theta``.

        implicit: False leaves the second term out, as ordinary reward learning does.
        """
        for _ in range(self.inner):
            theta = theta + self.policy_rate * grad(lower, 1)(nu, theta)
        found = self.hypergradient(upper, lower, nu, theta)
        return nu - self.reward_rate * (found.total if implicit else found.direct), theta, found

    def _solved(self, lower: Lower, nu: Tensor, theta: Tensor, through: Tensor) -> tuple[Tensor, float]:
        """``(-grad^2_theta V)^-1 grad_theta G`` and how far from solving it that is."""

        def curved(vector: Tensor) -> Tensor:
            product: Tensor = grad(lambda policy: (grad(lower, 1)(nu, policy) * vector).sum())(theta)
            return -product

        if self.solver == "identity":
            solved = through / self.damping
        elif self.solver == "cg":
            solved = _conjugate(lambda vector: curved(vector) + self.damping * vector, through, self.iterations)
        else:
            matrix: Tensor = -hessian(lower, 1)(nu, theta)
            solved = torch.linalg.pinv((matrix + matrix.mT) / 2, rtol=1e-10, hermitian=True) @ through
        return solved, float((curved(solved) - through).norm() / through.norm().clamp(min=1e-300))


def score_gradient(
    utility: Float64[Tensor, " trajectories"],
    score: Float64[Tensor, "trajectories numbers"],
    baseline: Literal["none", "others"] = "others",
) -> Vector:
    """``mean_k (U_k - b_k) grad log rho(tau_k; theta)``: an unbiased estimate of ``grad_theta E[U]``.

    utility: of sampled trajectories, or pairs of them with their label.  score: the sum over their actions, of both
    in a pair, of ``grad log pi``.  baseline: ``others``: the mean of the other samples, which leaves it unbiased.
    Raises :class:`InputError` for one sample with a baseline, and shapes that do not fit.
    """
    count = len(utility)
    if score.ndim != 2 or len(score) != count or count < (2 if baseline == "others" else 1):
        raise InputError(
            f"score gradient: {count} utilities and scores of shape {tuple(score.shape)}; there must be a row for "
            "each, and two for a baseline"
        )
    excess = (utility - utility.mean()) * count / (count - 1) if baseline == "others" else utility
    return (excess.unsqueeze(1) * score).mean(0)


def _conjugate(product: Callable[[Tensor], Tensor], target: Tensor, iterations: int) -> Tensor:
    """The solution of a positive definite system by conjugate gradients, stopped where it is not, or is solved."""
    solved, residual = torch.zeros_like(target), target
    direction, size = residual, residual @ residual
    least = 1e-24 * size
    for _ in range(iterations):
        if not bool(size > least):
            break
        ahead = product(direction)
        curvature = direction @ ahead
        if not bool(curvature > 0):
            break
        solved = solved + size / curvature * direction
        residual = residual - size / curvature * ahead
        size, before = residual @ residual, size
        direction = residual + size / before * direction
    return solved
