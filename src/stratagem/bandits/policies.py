"""Policies that pull one arm a round: indices, posteriors, and those that explore around a regression oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64, Int64

from stratagem.bandits.exploration import Exploration, Greedy, InverseGap, ReweightedCosts, draw, floored
from stratagem.bandits.oracles import Aggregated, Oracle, Ridge
from stratagem.bandits.problems import Bandit, FiniteClassBandit, OfRuns, PlainBandit, View, chosen_of
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.validation import validate_fields

Chosen = Int64[np.ndarray, " runs"]
Probabilities = Float64[np.ndarray, "runs arms"]
Guarantee = Float64[np.ndarray, "runs points"]


class Policy(ABC):
    """Pulls arms and learns from rewards, in all runs at once. ``start`` begins anew, so that it can be used again."""

    @abstractmethod
    def start(self, bandit: Bandit) -> None:
        """Forget, and make room for the runs and arms of this bandit; nothing else of it may be read."""

    @abstractmethod
    def probabilities(self, view: View) -> Probabilities:
        """With which each arm is pulled in this round."""

    def choose(self, view: View, generator: np.random.Generator) -> tuple[Chosen, OfRuns]:
        """Arms drawn, and the probabilities they were drawn with."""
        probabilities = self.probabilities(view)
        arms = draw(probabilities, generator.random(len(probabilities)))
        return arms, chosen_of(probabilities, arms)

    @abstractmethod
    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """Take note of what the arms pulled in that view paid."""

    def guarantee(self, bandit: Bandit, rounds: Int64[np.ndarray, " points"]) -> Guarantee | None:
        """What theory says its expected regret in this bandit is at most, after so many rounds.

        None where no theorem applies, or none that names its constants. Rewards are known at once.
        """
        return None


@dataclass
class Uniform(Policy):
    """Every feasible arm with the same probability; learns nothing."""

    def start(self, bandit: Bandit) -> None:
        """Nothing to forget."""

    def probabilities(self, view: View) -> Probabilities:
        """``1 / K``."""
        return np.asarray(view.feasible / view.feasible.sum(-1, keepdims=True))

    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """Nothing to learn."""


class _Counting(Policy):
    """Counts pulls and sums rewards by arm."""

    pulls: Probabilities
    total: Probabilities

    def start(self, bandit: Bandit) -> None:
        """No pulls."""
        self.pulls = np.zeros((bandit.runs, bandit.arms))
        self.total = np.zeros((bandit.runs, bandit.arms))

    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """Count."""
        runs = np.arange(len(arms))
        self.pulls[runs, arms] += 1
        self.total[runs, arms] += rewards

    @property
    def mean(self) -> Probabilities:
        """Of the rewards of each arm; infinite before its first pull."""
        return np.where(self.pulls > 0, self.total / np.maximum(self.pulls, 1), np.inf)


def _untried_first(index: Probabilities, view: View) -> Probabilities:
    """The greedy distribution by an index that is infinite for arms that nobody pulled."""
    return Greedy()(np.where(np.isinf(index), 1e300, index), view.feasible)


@dataclass
class EpsilonGreedy(_Counting):
    """The arm with the best mean so far, and with probability ``epsilon`` any: uniform exploration.

    epsilon: in [0, 1]. Raises :class:`InputError` otherwise.
    """

    epsilon: Annotated[float, Ge(0), Le(1)] = 0.1

    def __post_init__(self) -> None:
        validate_fields(self, "epsilon_greedy")

    def probabilities(self, view: View) -> Probabilities:
        """Untried arms come first."""
        return floored(_untried_first(self.mean, view), self.epsilon, view.feasible)


@paper(
    None,
    title="Finite-time Analysis of the Multiarmed Bandit Problem",
    family="bandits",
    roles=("policy",),
    year=2002,
    name="ucb1",
    tags=("learning",),
)
@dataclass
class UCB1(_Counting):
    """Pulls the arm with the largest ``mean + scale sqrt(2 ln t / n)``: optimism.

    For rewards in [0, 1] and ``scale = 1`` the expected regret after ``T`` rounds is at most
    ``sum_a 8 ln T / gap_a + (1 + pi^2 / 3) gap_a`` (Auer, Cesa-Bianchi and Fischer, Machine Learning 47, theorem 1).

    scale: of the bonus, at least 0. Raises :class:`InputError` otherwise.
    """

    scale: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        validate_fields(self, "ucb1")

    def probabilities(self, view: View) -> Probabilities:
        """1 for the arm with the largest index; each arm is tried once first."""
        total = np.maximum(self.pulls.sum(-1, keepdims=True), 1)
        return _untried_first(self.mean + self.scale * np.sqrt(2 * np.log(total) / np.maximum(self.pulls, 1)), view)

    def guarantee(self, bandit: Bandit, rounds: Int64[np.ndarray, " points"]) -> Guarantee | None:
        """The theorem's bound, for arms without contexts that pay 0 or 1; arms without a gap do not count."""
        if self.scale != 1 or not isinstance(bandit, PlainBandit) or bandit.noise != "bernoulli":
            return None
        gap = (bandit.table.max(-1, keepdims=True) - bandit.table)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = 8 * np.log(rounds)[:, None] / gap + (1 + np.pi**2 / 3) * gap
        return np.asarray(np.where(gap > 0, terms, 0.0).sum(-1))


@paper(
    "1111.1797",
    title="Analysis of Thompson Sampling for the Multi-armed Bandit Problem",
    family="bandits",
    roles=("policy",),
    year=2012,
    name="thompson_sampling",
    tags=("learning",),
)
@dataclass
class ThompsonSampling(_Counting):
    """Draws a mean for every arm from its Beta posterior and pulls the largest.

    A reward between 0 and 1 counts in part as a success, where the paper throws a coin of that chance.

    prior: both parameters of every arm's Beta prior, positive. Raises :class:`InputError` otherwise.
    """

    prior: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        validate_fields(self, "thompson_sampling")

    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """Count. Raises :class:`InputError` for rewards outside [0, 1]."""
        if not np.all((rewards >= 0) & (rewards <= 1)):
            raise InputError("thompson_sampling: rewards must be in [0, 1]")
        super().update(view, arms, rewards)

    def choose(self, view: View, generator: np.random.Generator) -> tuple[Chosen, OfRuns]:
        """Drawn from the posterior; the probabilities cost an integral, so they are not worked out here but nan."""
        drawn = generator.beta(*self._posterior)
        arms = np.where(view.feasible, drawn, -1.0).argmax(-1)
        return arms, np.full(len(arms), np.nan)

    def probabilities(self, view: View) -> Probabilities:
        """Of each arm to have the largest mean, ``int f_a prod_b F_b``, by the midpoint rule on 2000 points."""
        from scipy.special import betainc

        first, second = self._posterior
        edges = np.linspace(0, 1, 2001)
        below = betainc(first[..., None], second[..., None], edges)
        below = np.where(view.feasible[..., None], below, 1.0)
        mass, middle = np.diff(below, axis=-1), np.maximum((below[..., 1:] + below[..., :-1]) / 2, 1e-300)
        others = np.exp(np.log(middle).sum(-2, keepdims=True) - np.log(middle))
        found = np.where(view.feasible, (mass * others).sum(-1), 0.0)
        return np.asarray(found / found.sum(-1, keepdims=True))

    @property
    def _posterior(self) -> tuple[Probabilities, Probabilities]:
        return self.prior + self.total, self.prior + self.pulls - self.total


@paper(
    "1003.0146",
    title="A Contextual-Bandit Approach to Personalized News Article Recommendation",
    family="bandits",
    roles=("policy",),
    year=2010,
    name="linucb",
    tags=("learning",),
)
@dataclass
class LinUCB(Policy):
    """Pulls the arm with the largest ``<w, x> + width sqrt(x' A^-1 x)``, ``w`` by ridge regression: linear optimism.

    All arms share one weight vector.

    width: of the confidence ellipsoid, at least 0; the paper's ``alpha``.  strength: of the ridge, positive.
    Raises :class:`InputError` otherwise.
    """

    width: Annotated[float, Ge(0)] = 1.0
    strength: Annotated[float, Gt(0)] = 1.0
    oracle: Ridge = field(init=False, repr=False)

    def __post_init__(self) -> None:
        validate_fields(self, "linucb")

    def start(self, bandit: Bandit) -> None:
        """No data."""
        needs_features("linucb", bandit)
        self.oracle = Ridge(self.strength)
        self.oracle.start(bandit.runs, bandit.features)

    def probabilities(self, view: View) -> Probabilities:
        """1 for the arm with the largest index."""
        linear = np.einsum("raf,rf->ra", view.features, self.oracle.weights)
        return Greedy()(linear + self.width * self.oracle.widths(view.features), view.feasible)

    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """One step of the regression."""
        self.oracle.learn(chosen_of(view.features, arms), rewards)


@dataclass
class OraclePolicy(Policy):
    """Explores around the predictions of a regression oracle.

    exploration: from predictions to probabilities.  oracle: None for :class:`Ridge`.
    floor: share of uniform exploration, in [0, 1]. Raises :class:`InputError` otherwise.
    """

    exploration: Exploration = field(default_factory=Greedy)
    oracle: Oracle | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise InputError(f"floor = {self.floor}: must be in [0, 1]")

    def start(self, bandit: Bandit) -> None:
        """A fresh oracle."""
        needs_features("a policy with a regression oracle", bandit)
        self.oracle = self.oracle or Ridge()
        self.oracle.start(bandit.runs, bandit.features)

    def probabilities(self, view: View) -> Probabilities:
        """Those of the exploration, with the floor."""
        assert self.oracle is not None, "start() makes it"
        predicted = self.oracle.predict(view.features)
        return floored(self.exploration(predicted, view.feasible), self.floor, view.feasible)

    def update(self, view: View, arms: Chosen, rewards: OfRuns) -> None:
        """The oracle learns."""
        assert self.oracle is not None, "start() makes it"
        self.oracle.learn(chosen_of(view.features, arms), rewards)


class GreedyOracle(OraclePolicy):
    """The best arm by a regression oracle, and any with probability ``epsilon``: epsilon-greedy with features."""

    def __init__(self, epsilon: float = 0.1, oracle: Oracle | None = None) -> None:
        super().__init__(Greedy(), oracle, epsilon)


@paper(
    "2002.04926",
    title="Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles",
    family="bandits",
    roles=("policy",),
    year=2020,
    name="squarecb",
    tags=("learning",),
)
class SquareCB(OraclePolicy):
    """An online regression oracle for squared loss, explored by inverse gaps (:class:`InverseGap`).

    With a right function in the oracle's class the expected regret is at most ``2 K T / gamma + gamma Reg / 4``, where
    ``Reg`` bounds the oracle's own: ``sqrt(2 K T Reg)`` with :func:`squarecb_gamma`.

    gamma: of the weighting.  oracle, floor: as in :class:`OraclePolicy`.
    """

    def __init__(self, gamma: float = 100.0, oracle: Oracle | None = None, floor: float = 0.0) -> None:
        super().__init__(InverseGap(gamma), oracle, floor)
        self.gamma = gamma

    def guarantee(self, bandit: Bandit, rounds: Int64[np.ndarray, " points"]) -> Guarantee | None:
        """The theorem's bound, for an oracle that aggregates a class with the right function in it."""
        if not isinstance(bandit, FiniteClassBandit) or not isinstance(self.oracle, Aggregated):
            return None
        if self.oracle.loss != "squared" or self.floor or not 0 < self.gamma < np.inf:
            return None
        within = Aggregated.exceeds(bandit.features, "squared")
        found = 2 * bandit.arms * rounds / self.gamma + self.gamma * within / 4
        return np.broadcast_to(found, (bandit.runs, len(rounds)))


def squarecb_gamma(arms: int, rounds: int, regression_regret: float) -> float:
    """``sqrt(8 K T / Reg)``, which makes SquareCB's bound on the expected regret ``sqrt(2 K T Reg)``, the least."""
    return float(np.sqrt(8 * arms * rounds / regression_regret))


@paper(
    "2107.02237",
    title="Efficient First-Order Contextual Bandits: Prediction, Allocation, and Triangular Discrimination",
    family="bandits",
    roles=("policy",),
    year=2021,
    name="fastcb",
    tags=("learning",),
)
class FastCB(OraclePolicy):
    """An oracle for log loss, explored less the smaller the best predicted cost (:class:`ReweightedCosts`).

    Its regret grows with the cost of the best policy instead of the number of rounds.

    gamma: of the weighting.  oracle: None for a Bayesian mixture of the class whose predictions are the features.
    floor: as in :class:`OraclePolicy`.
    """

    def __init__(self, gamma: float = 100.0, oracle: Oracle | None = None, floor: float = 0.0) -> None:
        super().__init__(ReweightedCosts(gamma), oracle or Aggregated("log"), floor)


def needs_features(who: str, bandit: Bandit) -> None:
    """Raise :class:`InputError` for a bandit whose arms have none."""
    if not bandit.features:
        raise InputError(f"{who}: needs features, which the arms of this bandit do not have")
