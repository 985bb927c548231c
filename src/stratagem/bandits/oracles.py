"""Online regression: predictions of mean rewards that are corrected after every pull."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import numpy as np
from annotated_types import Gt
from jaxtyping import Float64

from stratagem.bandits.problems import OfRuns
from stratagem.validation import validate_fields

Features = Float64[np.ndarray, "runs features"]


class Oracle(Protocol):
    """Predicts mean rewards from features, and learns. ``start`` begins anew."""

    def start(self, runs: int, features: int) -> None:
        """Forget, and make room."""
        ...

    def predict(self, features: Float64[np.ndarray, "runs arms features"]) -> Float64[np.ndarray, "runs arms"]:
        """Predicted mean rewards in [0, 1]."""
        ...

    def learn(self, features: Features, rewards: OfRuns) -> None:
        """Take note of one reward in every run."""
        ...


@dataclass
class Ridge:
    """Online ridge regression: ``w = (strength I + sum x x')^-1 sum x r``, predictions clipped to [0, 1].

    strength: positive. Raises :class:`InputError` otherwise.
    """

    strength: Annotated[float, Gt(0)] = 1.0
    inverse: Float64[np.ndarray, "runs features features"] = field(init=False, repr=False)
    moment: Features = field(init=False, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self, "ridge")

    def start(self, runs: int, features: int) -> None:
        """No data."""
        self.inverse = np.tile(np.eye(features) / self.strength, (runs, 1, 1))
        self.moment = np.zeros((runs, features))

    @property
    def weights(self) -> Features:
        """Of the features, as they stand."""
        return np.asarray(np.einsum("rfg,rg->rf", self.inverse, self.moment))

    def predict(self, features: Float64[np.ndarray, "runs arms features"]) -> Float64[np.ndarray, "runs arms"]:
        """Linear predictions, clipped."""
        return np.asarray(np.clip(np.einsum("raf,rf->ra", features, self.weights), 0, 1))

    def widths(self, features: Float64[np.ndarray, "runs arms features"]) -> Float64[np.ndarray, "runs arms"]:
        """``sqrt(x' A^-1 x)``: how little is known in the direction of each arm."""
        return np.asarray(np.sqrt(np.einsum("raf,rfg,rag->ra", features, self.inverse, features, optimize=True)))

    def learn(self, features: Features, rewards: OfRuns) -> None:
        """One step of Sherman and Morrison."""
        moved = np.einsum("rfg,rg->rf", self.inverse, features)
        scale = 1 + np.einsum("rf,rf->r", features, moved)
        self.inverse -= np.einsum("rf,rg->rfg", moved, moved) / scale[:, None, None]
        self.moment += features * rewards[:, None]


@dataclass
class Aggregated:
    """Weights over a finite class whose predictions are the features: nearly as good as its best function.

    With squared loss, Vovk's aggregating algorithm: weights ``exp(-2 sum (f - r)^2)`` and the prediction that loses no
    more than their mixture whatever the reward; for rewards in [0, 1] the squared loss of all predictions exceeds that
    of the best function by at most ``ln(functions) / 2``. With log loss, the Bayesian mixture, by at most
    ``ln(functions)``.

    Raises :class:`InputError` for another loss.
    """

    loss: Literal["squared", "log"] = "squared"
    log_weights: Features = field(init=False, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self, "aggregated")

    def start(self, runs: int, features: int) -> None:
        """Equal weights."""
        self.log_weights = np.zeros((runs, features))

    @property
    def weights(self) -> Features:
        """Of the functions; they sum to 1."""
        weights = np.exp(self.log_weights - self.log_weights.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True))

    @staticmethod
    def exceeds(functions: int, loss: Literal["squared", "log"]) -> float:
        """What its loss may exceed that of the best of so many functions by, over any number of rounds."""
        return float(np.log(functions)) * (0.5 if loss == "squared" else 1.0)

    @property
    def bound(self) -> float:
        """That of the class it has begun with."""
        return self.exceeds(self.log_weights.shape[-1], self.loss)

    def predict(self, features: Float64[np.ndarray, "runs arms features"]) -> Float64[np.ndarray, "runs arms"]:
        """The mixture; for squared loss ``1/2 + (g(0) - g(1)) / 2`` with ``g(r) = -ln sum w exp(-2 (f - r)^2) / 2``."""
        weights = self.weights[:, None, :]
        if self.loss == "log":
            return np.asarray((weights * features).sum(-1))
        missed = [-np.log((weights * np.exp(-2 * (features - reward) ** 2)).sum(-1)) / 2 for reward in (0.0, 1.0)]
        return np.asarray(np.clip(0.5 + (missed[0] - missed[1]) / 2, 0, 1))

    def learn(self, features: Features, rewards: OfRuns) -> None:
        """Functions that erred lose weight."""
        reward = rewards[:, None]
        if self.loss == "squared":
            self.log_weights -= 2 * (features - reward) ** 2
        else:
            likely = np.clip(features, 1e-12, 1 - 1e-12)
            self.log_weights += reward * np.log(likely) + (1 - reward) * np.log1p(-likely)
