"""Bandits with exact mean rewards, many runs side by side: plain arms, and contexts of three kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from stratagem.errors import InputError
from stratagem.seeding import numpy_generator

Noise = Literal["bernoulli", "gaussian"]

OfRuns = Float64[np.ndarray, " runs"]


@dataclass(frozen=True)
class View:
    """What is seen before a pull. number: of the round, from 0.

    features: of every arm, of no columns where arms have no context.  feasible: which arms may be pulled.
    """

    number: int
    features: Float64[np.ndarray, "runs arms features"]
    feasible: Bool[np.ndarray, "runs arms"]


class Bandit(ABC):
    """One arm is pulled a round, in each of ``runs`` runs that do not know of each other."""

    runs: int
    arms: int
    features: int = 0

    @abstractmethod
    def view(self, number: int, generator: np.random.Generator) -> View:
        """What is seen in a round."""

    @abstractmethod
    def means(self, view: View) -> Float64[np.ndarray, "runs arms"]:
        """Mean rewards of all arms, exact: what regret is measured by and no policy sees."""

    def rewards(self, means: OfRuns, generator: np.random.Generator) -> OfRuns:
        """Rewards of pulled arms with these means: 0 or 1."""
        return (generator.random(means.shape) < means).astype(np.float64)


class PlainBandit(Bandit):
    """Arms with fixed means and no context: Bernoulli rewards, or Gaussian ones of a standard deviation.

    table: the mean of every arm in every run, in [0, 1] for Bernoulli rewards.
    Raises :class:`InputError` for means out of range or that are not those of at least one run and arm.
    """

    def __init__(
        self, table: Float64[np.ndarray, "runs arms"], noise: Noise = "bernoulli", deviation: float = 1.0
    ) -> None:
        table = np.asarray(table, dtype=np.float64)
        if table.ndim != 2 or not table.size or not np.isfinite(table).all():
            raise InputError("means: must be finite, of at least one run and one arm")
        if noise not in ("bernoulli", "gaussian"):
            raise InputError(f"noise = {noise!r}: must be bernoulli or gaussian")
        if noise == "bernoulli" and not np.all((table >= 0) & (table <= 1)):
            raise InputError("means: must be in [0, 1] for Bernoulli rewards")
        if not 0 <= deviation < np.inf:
            raise InputError(f"deviation = {deviation}: must be at least 0 and finite")
        self.table, self.noise, self.deviation = table, noise, deviation
        self.runs, self.arms = table.shape

    @classmethod
    def gapped(
        cls, runs: int, arms: int = 10, best: float = 0.6, gap: float = 0.1, noise: Noise = "bernoulli"
    ) -> PlainBandit:
        """One arm of mean ``best`` and others ``gap`` worse; which of them it is goes round with the runs."""
        _positive(runs=runs, arms=arms)
        table = np.full((runs, arms), best - gap)
        table[np.arange(runs), np.arange(runs) % arms] = best
        return cls(table, noise)

    @classmethod
    def drawn(cls, runs: int, seed: int, arms: int = 10, noise: Noise = "bernoulli") -> PlainBandit:
        """Means uniform in [0, 1], drawn anew for every run."""
        _positive(runs=runs, arms=arms)
        return cls(numpy_generator(seed, "plain bandit").random((runs, arms)), noise)

    def view(self, number: int, generator: np.random.Generator) -> View:
        """No features, and every arm feasible."""
        shape = (self.runs, self.arms)
        return View(number, np.empty((*shape, 0)), np.ones(shape, dtype=bool))

    def means(self, view: View) -> Float64[np.ndarray, "runs arms"]:
        """The table."""
        return self.table

    def rewards(self, means: OfRuns, generator: np.random.Generator) -> OfRuns:
        """0 or 1, or normal."""
        if self.noise == "bernoulli":
            return super().rewards(means, generator)
        return means + self.deviation * generator.standard_normal(means.shape)


class LinearBandit(Bandit):
    """Every round each arm has features; its mean reward is linear in them, or a logistic function of that.

    Features are a point drawn uniformly from the unit sphere in ``dimension`` dimensions, and a constant 1 behind it.
    With weights ``w`` of length 1, drawn for every run, the mean is ``(1 + <w, x>) / 2``; with ``scale`` it is
    ``1 / (1 + exp(-scale <w, x>))``, in which no linear model is right. Rewards are 0 or 1.

    open_share: chance that an arm is feasible in a round, in (0, 1]; one always is.
    Raises :class:`InputError` for values out of range.
    """

    def __init__(
        self,
        runs: int,
        seed: int,
        arms: int = 10,
        dimension: int = 5,
        scale: float | None = None,
        open_share: float = 1.0,
    ) -> None:
        _positive(runs=runs, arms=arms, dimension=dimension)
        if scale is not None and not 0 < scale < np.inf:
            raise InputError(f"scale = {scale}: must be positive and finite, or None")
        if not 0 < open_share <= 1:
            raise InputError(f"open_share = {open_share}: must be in (0, 1]")
        self.runs, self.arms, self.features = runs, arms, dimension + 1
        self.scale, self.open_share = scale, open_share
        self.weights = _unit(numpy_generator(seed, "linear bandit").standard_normal((runs, dimension)))

    def view(self, number: int, generator: np.random.Generator) -> View:
        """Features and feasible arms, drawn anew."""
        shape = (self.runs, self.arms)
        points = _unit(generator.standard_normal((*shape, self.features - 1)))
        features = np.concatenate([points, np.ones((*shape, 1))], -1)
        return View(number, features, open_arms(generator.random(shape), self.open_share))

    def means(self, view: View) -> Float64[np.ndarray, "runs arms"]:
        """Linear or logistic in the features."""
        product = np.einsum("raf,rf->ra", view.features[..., :-1], self.weights)
        return np.asarray((1 + product) / 2 if self.scale is None else 1 / (1 + np.exp(-self.scale * product)))


class FiniteClassBandit(Bandit):
    """Contexts, arms, and a finite class of functions one of which is right: the setting of the regret bounds.

    The features of an arm are what each function predicts of it, so that an oracle over the class reads them from the
    view. Predictions are uniform in [0, 1], drawn for every run, context, arm and function. Rewards are 0 or 1.

    lowest: of the predictions, in [0, 1). With 0.5, say, costs are small everywhere.
    Raises :class:`InputError` for values out of range.
    """

    def __init__(
        self, runs: int, seed: int, arms: int = 5, functions: int = 16, contexts: int = 20, lowest: float = 0.0
    ) -> None:
        _positive(runs=runs, arms=arms, functions=functions, contexts=contexts)
        if not 0 <= lowest < 1:
            raise InputError(f"lowest = {lowest}: must be in [0, 1)")
        source = numpy_generator(seed, "finite class bandit")
        self.runs, self.arms, self.features, self.contexts = runs, arms, functions, contexts
        self.table = lowest + (1 - lowest) * source.random((runs, contexts, arms, functions))
        self.right = source.integers(functions, size=runs)

    def view(self, number: int, generator: np.random.Generator) -> View:
        """A context drawn uniformly."""
        features = self.table[np.arange(self.runs), generator.integers(self.contexts, size=self.runs)]
        return View(number, features, np.ones((self.runs, self.arms), dtype=bool))

    def means(self, view: View) -> Float64[np.ndarray, "runs arms"]:
        """What the right function says."""
        return np.take_along_axis(view.features, self.right[:, None, None], -1)[..., 0]


def open_arms(uniform: Float64[np.ndarray, "*batch arms"], share: float) -> Bool[np.ndarray, "*batch arms"]:
    """Arms whose number lies below ``share``, and the one with the least number, so that one always is open."""
    return np.asarray((uniform < share) | (uniform == uniform.min(-1, keepdims=True)))


def chosen_of(
    values: Float64[np.ndarray, "runs arms ..."], arms: Int64[np.ndarray, " runs"]
) -> Float64[np.ndarray, "runs ..."]:
    """The values of one arm in each run."""
    return np.asarray(values[np.arange(len(arms)), arms])


def _unit(points: Float64[np.ndarray, "*batch features"]) -> Float64[np.ndarray, "*batch features"]:
    return np.asarray(points / np.linalg.norm(points, axis=-1, keepdims=True))


def _positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} = {count}: must be at least 1")
