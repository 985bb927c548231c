"""Off-policy evaluation: what a policy would have earned, from the log of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from stratagem.errors import InputError

Events = Float64[np.ndarray, "*batch events"]
Value = Float64[np.ndarray, "*batch"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Events logged by one policy, and what another would have done; estimators are its methods.

    arms: that were pulled.  rewards: they paid.  propensity: they were pulled with, positive.
    target: probabilities of the policy to evaluate.  predicted: mean rewards by a model, for those estimators that
    take one.  clip: importance weights ``w = target / propensity`` are cut here; None for not at all.

    Leading dimensions are logs of their own. Raises :class:`InputError` for propensities that are not in (0, 1],
    distributions that do not sum to 1, and where it lacks the model that an estimator needs.
    """

    arms: Int64[np.ndarray, "*batch events"]
    rewards: Events
    propensity: Events
    target: Float64[np.ndarray, "*batch events arms"]
    predicted: Float64[np.ndarray, "*batch events arms"] | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        if not np.all((self.propensity > 0) & (self.propensity <= 1)):
            raise InputError("propensity: must be in (0, 1] for every event; log what arms were really drawn with")
        if not np.all(np.abs(self.target.sum(-1) - 1) < 1e-6) or np.any(self.target < 0):
            raise InputError("target: must be a distribution over the arms for every event")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"clip = {self.clip}: must be positive, or None")

    @property
    def weights(self) -> Events:
        """Importance weights, clipped."""
        weights = _of(self.target, self.arms) / self.propensity
        return np.asarray(weights if self.clip is None else np.minimum(weights, self.clip))

    def inverse_propensity(self) -> Value:
        """``mean w r``: without bias where nothing is clipped and every arm of the target could be pulled."""
        return np.asarray((self.weights * self.rewards).mean(-1))

    def self_normalized(self) -> Value:
        """``sum w r / sum w``: a little biased, and within the range of the rewards. 0 where all weights are 0."""
        weights = self.weights
        total = weights.sum(-1)
        return np.asarray((weights * self.rewards).sum(-1) / np.where(total > 0, total, 1.0))

    def direct(self) -> Value:
        """``mean sum_a target f``: as biased as the model."""
        return np.asarray((self.target * self._model).sum(-1).mean(-1))

    def doubly_robust(self) -> Value:
        """``mean [sum_a target f + w (r - f)]``: without bias where propensities or the model are right."""
        return np.asarray(self.direct() + (self.weights * self._residual).mean(-1))

    def switch(self, largest: float) -> Value:
        """Doubly robust where ``w <= largest``, the model alone elsewhere (arXiv 1612.01205).

        Raises :class:`InputError` for a negative ``largest``.
        """
        if not largest >= 0:
            raise InputError(f"switch: largest = {largest}: must be at least 0")
        weights = self.weights
        return np.asarray(self.direct() + (np.where(weights <= largest, weights, 0.0) * self._residual).mean(-1))

    def effective_size(self) -> Value:
        """``(sum w)^2 / sum w^2``: of how many events of the target's own the log is worth. 0 where all weights are."""
        weights = self.weights
        squares = (weights**2).sum(-1)
        return np.asarray(weights.sum(-1) ** 2 / np.where(squares > 0, squares, 1.0))

    @property
    def _model(self) -> Float64[np.ndarray, "*batch events arms"]:
        if self.predicted is None:
            raise InputError("predicted: this estimator needs mean rewards by a model")
        return self.predicted

    @property
    def _residual(self) -> Events:
        return np.asarray(self.rewards - _of(self._model, self.arms))


def _of(values: Float64[np.ndarray, "*batch events arms"], arms: Int64[np.ndarray, "*batch events"]) -> Events:
    return np.take_along_axis(values, arms[..., None], -1)[..., 0]
