"""From predicted rewards to the probabilities of arms: inverse gaps, reweighted costs, the greedy arm, a floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from annotated_types import Ge
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike

from stratagem.errors import InputError
from stratagem.validation import validate_fields

Arms = Float64[np.ndarray, "*batch arms"]
"""A number for every arm, after any number of dimensions (runs, events)."""

Feasible = Bool[np.ndarray, "*batch arms"]


class Exploration(Protocol):
    """Turns predicted mean rewards into a distribution over the arms that may be pulled."""

    def __call__(self, predicted: Arms, feasible: Feasible | None = None) -> Arms:
        """Probabilities, 0 where an arm is not feasible."""
        ...


@dataclass(frozen=True)
class Greedy:
    """All on the arm with the largest predicted reward; the first of several."""

    def __call__(self, predicted: Arms, feasible: Feasible | None = None) -> Arms:
        """Raises :class:`InputError` as :func:`checked` does."""
        predicted, feasible = checked(predicted, feasible)
        return _the_rest_on(_first_best(predicted, feasible), np.zeros_like(predicted))


@dataclass(frozen=True)
class InverseGap:
    """Inverse gap weighting, SquareCB's: ``p(a) = 1 / (mu + gamma (max f - f(a)))``, the rest on the best arm.

    With ``mu`` the number of feasible arms and true means ``f*``, for any predictions ``f`` (arXiv 2002.04926, lemma 3)

        sum_a p(a) [max f* - f*(a) - gamma / 4 (f(a) - f*(a))^2] <= 2 mu / gamma.

    gamma: at least 0. 0 is uniform, infinity is greedy: all but arms that tie, which keep ``1 / mu``.
    mu: None for the number of feasible arms; a number may not be smaller than that, for the rest could be negative.

    Raises :class:`InputError` for values out of range.
    """

    gamma: Annotated[float, Ge(0)] = 100.0
    mu: Annotated[float, Ge(1)] | None = None

    def __post_init__(self) -> None:
        validate_fields(self, "inverse_gap")

    def __call__(self, predicted: Arms, feasible: Feasible | None = None) -> Arms:
        """Raises :class:`InputError` as :func:`checked` does, and where ``mu`` is below the number of arms."""
        predicted, feasible = checked(predicted, feasible)
        count = feasible.sum(-1, keepdims=True)
        mu = count if self.mu is None else self.mu
        if np.any(mu < count):
            raise InputError(f"inverse_gap: mu = {self.mu} is below the number of feasible arms, {count.max()}")
        best = _first_best(predicted, feasible)
        gap = np.take_along_axis(predicted, best[..., None], -1) - predicted
        with np.errstate(invalid="ignore"):
            weight = 1 / (mu + np.where(gap > 0, self.gamma * gap, 0.0))
        return _the_rest_on(best, np.where(feasible, weight, 0.0))


@dataclass(frozen=True)
class ReweightedCosts:
    """FastCB's weighting: ``p(a) = c_b / (K c_b + gamma (c_a - c_b))`` of costs ``c = 1 - f``, the rest on the best.

    ``b`` is the arm with the smallest cost ``c_b``. The smaller that is, the less is explored: where the best arm costs
    nothing nothing is (arXiv 2107.02237).

    gamma: at least 0; 0 is uniform unless ``c_b = 0``. Raises :class:`InputError` for values out of range.
    """

    gamma: Annotated[float, Ge(0)] = 100.0

    def __post_init__(self) -> None:
        validate_fields(self, "reweighted_costs")

    def __call__(self, predicted: Arms, feasible: Feasible | None = None) -> Arms:
        """Raises :class:`InputError` as :func:`checked` does, and for predictions outside [0, 1]."""
        predicted, feasible = checked(predicted, feasible)
        if np.any(feasible & ((predicted < 0) | (predicted > 1))):
            raise InputError("predicted rewards: must be in [0, 1] to be turned into costs")
        best = _first_best(predicted, feasible)
        cost = 1 - predicted
        least = np.take_along_axis(cost, best[..., None], -1)
        count = feasible.sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(cost > least, self.gamma * (cost - least), 0.0)
            weight = least / (count * least + excess)
        return _the_rest_on(best, np.where(feasible & (least > 0), weight, 0.0))


def floored(probabilities: Arms, epsilon: float, feasible: Feasible | None = None) -> Arms:
    """``(1 - epsilon) p + epsilon / K`` over the ``K`` feasible arms, so that each has support.

    Raises :class:`InputError` for ``epsilon`` outside [0, 1].
    """
    if not 0 <= epsilon <= 1:
        raise InputError(f"epsilon = {epsilon}: must be in [0, 1]")
    open_ = np.ones(probabilities.shape, dtype=bool) if feasible is None else feasible
    return np.asarray((1 - epsilon) * probabilities + epsilon * open_ / open_.sum(-1, keepdims=True))


def draw(probabilities: Arms, uniform: Float64[np.ndarray, "*batch"]) -> np.ndarray:
    """The arm that a number in [0, 1) picks from each distribution; never one of probability 0."""
    edges = np.cumsum(probabilities, -1)
    # Rounding may leave the last edge below 1: scaling by it keeps the draw inside.
    return np.asarray((edges <= uniform[..., None] * edges[..., -1:]).sum(-1))


def checked(predicted: ArrayLike, feasible: Feasible | None) -> tuple[Arms, Feasible]:
    """Predictions as float64 and who is feasible, all of them by default.

    Raises :class:`InputError` for predictions that are not finite where feasible, and where no arm is.
    """
    predicted = np.asarray(predicted, dtype=np.float64)
    feasible = np.ones(predicted.shape, dtype=bool) if feasible is None else feasible
    if not np.all(np.isfinite(predicted) | ~feasible):
        raise InputError("predicted rewards: must be finite")
    if not feasible.any(-1).all():
        raise InputError("feasible arms: there must be at least one in every round")
    return np.where(feasible, predicted, 0.0), feasible


def _first_best(predicted: Arms, feasible: Feasible) -> np.ndarray:
    return np.asarray(np.where(feasible, predicted, -np.inf).argmax(-1))


def _the_rest_on(best: np.ndarray, weight: Arms) -> Arms:
    """The weights with what is left to 1 on the best arm."""
    np.put_along_axis(weight, best[..., None], 0.0, -1)
    np.put_along_axis(weight, best[..., None], 1 - weight.sum(-1, keepdims=True), -1)
    return weight
