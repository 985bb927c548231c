"""Batch regression of success on features, in many runs at once: a logistic model, and any classifier run by run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float64

from stratagem.validation import validate_fields

Rows = Float64[np.ndarray, "runs events"]
Designs = Float64[np.ndarray, "runs events features"]


class Regressor(Protocol):
    """Predicts the chance of success, from whatever it was fitted to last. ``start`` begins anew."""

    def start(self, runs: int, features: int) -> None:
        """Forget."""
        ...

    def fit(self, features: Designs, successes: Rows, weights: Rows) -> None:
        """Fit to events; those of weight 0 do not count. A run whose events are all alike keeps its model."""
        ...

    def predict(self, features: Float64[np.ndarray, "runs ... features"]) -> Float64[np.ndarray, "runs ..."]:
        """Chances of success."""
        ...


@dataclass
class LogisticRegression:
    """``P(success) = 1 / (1 + exp(-<w, x>))`` by weighted maximum likelihood and a ridge, with Newton's method.

    The features should hold a constant. A fit begins at the last one. Where a run's events all succeeded, or all
    failed, or none counts, it keeps its weights; before the first fit these are 0.

    ridge: ``ridge / 2 |w|^2`` is added to the sum of log losses; positive.  steps: of Newton at most.
    Raises :class:`InputError` for values out of range.
    """

    ridge: Annotated[float, Gt(0)] = 1.0
    steps: Annotated[int, Ge(1)] = 8
    weights: Float64[np.ndarray, "runs features"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self, "logistic_regression")

    def start(self, runs: int, features: int) -> None:
        """All weights 0."""
        self.weights = np.zeros((runs, features))

    def fit(self, features: Designs, successes: Rows, weights: Rows) -> None:
        """Newton's method until the weights move by less than 1e-6."""
        told = both_outcomes(successes, weights)
        across, ridge = np.swapaxes(features, 1, 2), self.ridge * np.eye(features.shape[-1])
        found = self.weights
        for _ in range(self.steps):
            chance = _logistic((features @ found[..., None])[..., 0])
            slope = (across @ (weights * (chance - successes))[..., None])[..., 0] + self.ridge * found
            curvature = (across * (weights * chance * (1 - chance))[:, None, :]) @ features + ridge
            step = np.linalg.solve(curvature, slope[..., None])[..., 0]
            # A step of more than 5 is where the quadratic model is wrong: the likelihood is flat there.
            found = found - step / np.maximum(np.abs(step).max(-1, keepdims=True) / 5, 1)
            if np.abs(step[told]).max(initial=0) < 1e-6:
                break
        self.weights = np.where(told[:, None], found, self.weights)

    def predict(self, features: Float64[np.ndarray, "runs ... features"]) -> Float64[np.ndarray, "runs ..."]:
        """Chances of success."""
        flat = features.reshape(len(features), -1, features.shape[-1])
        return _logistic(flat @ self.weights[..., None])[..., 0].reshape(features.shape[:-1])


@dataclass
class EachRun:
    """A classifier in the manner of scikit-learn for each run: ``fit(X, y, sample_weight)`` and ``predict_proba``.

    A run whose events all came out alike keeps its classifier; before the first fit it predicts 1/2.

    make: a fresh classifier, such as ``lambda: HistGradientBoostingClassifier(max_iter=30)``.
    """

    make: Callable[[], Any]
    fitted: list[Any] = field(init=False, repr=False)

    def start(self, runs: int, features: int) -> None:
        """No classifier."""
        self.fitted = [None] * runs

    def fit(self, features: Designs, successes: Rows, weights: Rows) -> None:
        """One fit for each run."""
        for run in np.flatnonzero(both_outcomes(successes, weights)):
            counts = weights[run] > 0
            classifier = self.make()
            classifier.fit(features[run][counts], successes[run][counts], sample_weight=weights[run][counts])
            self.fitted[run] = classifier

    def predict(self, features: Float64[np.ndarray, "runs ... features"]) -> Float64[np.ndarray, "runs ..."]:
        """Chances of success."""
        flat = features.reshape(len(features), -1, features.shape[-1])
        found = [
            np.full(len(rows), 0.5) if one is None else one.predict_proba(rows)[:, 1]
            for one, rows in zip(self.fitted, flat, strict=True)
        ]
        return np.stack(found).reshape(features.shape[:-1])


def both_outcomes(successes: Rows, weights: Rows) -> np.ndarray:
    """Of each run, whether events that count succeeded and others failed: without either there is nothing to fit."""
    counts = weights > 0
    return np.asarray(((successes > 0.5) & counts).any(-1) & ((successes < 0.5) & counts).any(-1))


def _logistic(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -40, 40))))
