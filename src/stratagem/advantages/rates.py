"""Advantages scaled by how often a prompt is solved, beside how often the others of its batch are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Float64
from pydantic import FiniteFloat
from torch import Tensor

from stratagem.errors import InputError
from stratagem.experience import Experience
from stratagem.parts import Advantage

_CONCENTRATED = 1e8
"""From this ``a + b`` on, rates differ by what rounding may do and a density fitted to them is no number to rely on."""

_ROUNDING = 1e-6
"""By so much of its range a reward may lie outside of it: weighted sums of rewards are rounded."""


@dataclass(frozen=True)
class BetaNormalized(Advantage):
    """``A_i = (R_i - p) / f(p; alpha, beta)``, with ``p = mean_g R`` and ``f`` a Beta density (BNPO, arXiv 2506.02864).

    Rewards are in [0, 1]: of a binary one, ``p`` is the group's success rate. With ``m`` and ``v`` the mean and the
    unbiased variance of the rates of the batch's groups, Beta(a, b) has these moments for ``a = (m (1 - m) / v - 1) m``
    and ``b = (m (1 - m) / v - 1) (1 - m)``. Then ``alpha = max(1, 1 + a / 3)`` and ``beta = max(1, 1 + b / 3)``: for
    rates of that distribution they minimise ``E[p (1 - p) / f(p)^2]``, to which the estimate's second moment is
    proportional. So ``f`` is fitted to every batch, and has no gradient.

    Two shapes are known by other names: (1, 1) is ``GroupCentered``, and (3/2, 3/2) is ``GroupStandardized`` with the
    population's deviation, times ``pi / 8``. In rewards of another range ``R`` is ``(R - low) / (high - low)``.

    Where rates have no spread to fit to, the shape is (1, 1): with one group, and where all rates are equal or nearly
    so. It is (1, 1), too, where they spread more than any Beta density does. The size of the step depends on the
    shape: of rates that are close together ``f`` is large, and the advantage small, down to the point where they are
    equal. A group of equal rewards gets exactly 0.

    low, high: least and greatest reward there can be, ``low < high``.
    shape: ``(alpha, beta)`` for all batches, each at least 1; None: fitted to each.
    largest: bound of ``1 / f``, which is infinite at rates of 0 and 1; above 0.

    Raises :class:`InputError` for a return outside ``low`` to ``high``, naming its group.
    """

    minimum_group: ClassVar[int] = 2

    low: FiniteFloat = 0.0
    high: FiniteFloat = 1.0
    shape: tuple[Annotated[float, Ge(1)], Annotated[float, Ge(1)]] | None = None
    largest: Annotated[FiniteFloat, Gt(0)] = 1e6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise InputError(f"{self.part_name()}.high = {self.high}: must be above low = {self.low}")

    def __call__(self, x: Experience) -> Float[Tensor, " tokens"]:
        rewards = self._rewards(x)
        rates = x.group_of_trajectory.mean(rewards.double())
        weight = (-log_beta_density(rates, *self.shape_for(x))).exp().clamp(max=self.largest)
        centered = x.group_of_trajectory.center(rewards)
        scaled = x.group_of_trajectory.spread(weight) * centered
        return x.to_tokens(trajectory=scaled.to(centered.dtype))

    def shape_for(self, x: Experience) -> tuple[float, float]:
        """``(alpha, beta)`` for a batch."""
        if self.shape is not None:
            return self.shape
        rates = x.group_of_trajectory.mean(self._rewards(x).double())[x.group_of_trajectory.size() > 0]
        if len(rates) < 2:
            return 1.0, 1.0
        mean, variance = float(rates.mean()), float(rates.var())
        # a + b of Beta(a, b).
        total = mean * (1 - mean) / variance - 1 if variance > 0 else _CONCENTRATED
        if total >= _CONCENTRATED:
            return 1.0, 1.0
        return max(1.0, 1 + total * mean / 3), max(1.0, 1 + total * (1 - mean) / 3)

    def _rewards(self, x: Experience) -> Float[Tensor, " trajectories"]:
        rewards = (x.returns - self.low) / (self.high - self.low)
        inside = (rewards >= -_ROUNDING) & (rewards <= 1 + _ROUNDING)
        if not bool(inside.all()):
            bad = int(torch.nonzero(~inside)[0])
            group = int(x.group_of_trajectory.labels[bad])
            task = "" if x.task_id is None else f" (task {int(x.task_id[group])})"
            raise InputError(
                f"{self.part_name()}: trajectory {bad} of group {group}{task} has return {float(x.returns[bad]):g}: "
                f"must be between low = {self.low:g} and high = {self.high:g}"
            )
        return rewards.clamp(0, 1)


def log_beta_density(rates: Float64[Tensor, " rates"], alpha: float, beta: float) -> Float64[Tensor, " rates"]:
    """``log f(p; alpha, beta)`` of the Beta density, for ``alpha, beta >= 1``; 0 times ``log 0`` counts as 0."""
    a, b = (torch.tensor(value, dtype=torch.float64, device=rates.device) for value in (alpha, beta))
    constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
    density: Tensor = constant + torch.special.xlogy(a - 1, rates) + torch.special.xlog1py(b - 1, -rates)
    return density
