"""Policies in generations: deploy one, log its batch, retrain on what came back, deploy the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float64, Int64

from stratagem.bandits.exploration import Exploration, InverseGap, draw, floored
from stratagem.bandits.problems import open_arms
from stratagem.bandits.regressors import LogisticRegression, Regressor
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.seeding import numpy_generator
from stratagem.validation import validate_fields

Weighting = Literal["none", "inverse", "balanced", "uniform_slice"]


@dataclass(frozen=True)
class Payments:
    """Transactions to route: contexts, routes some of which are open, and a chance of success high at the start.

    The log-odds of success are ``base + <u, x> + v_a + interaction <W_a, x>`` with ``x`` standard normal in
    ``dimension`` dimensions, ``u`` and ``v`` normal of deviations 0.5 and ``arm_deviation``, ``W_a`` normal with
    ``|W_a|`` about 1, all drawn for every run. A logistic model without interactions, which ``interactions=False``
    gives the features of, is therefore wrong unless ``interaction`` is 0.

    open_share: chance that a route is open; one always is.  Raises :class:`InputError` for values out of range.
    """

    base: float = 2.75
    interaction: Annotated[float, Ge(0)] = 1.0
    arm_deviation: Annotated[float, Ge(0)] = 0.5
    arms: Annotated[int, Ge(1)] = 6
    dimension: Annotated[int, Ge(1)] = 10
    open_share: Annotated[float, Gt(0), Le(1)] = 0.7
    interactions: bool = False

    def __post_init__(self) -> None:
        validate_fields(self, "payments")

    def draw(self, runs: int, seed: int) -> PaymentWorld:
        """The weights of so many runs."""
        if runs < 1:
            raise InputError(f"runs = {runs}: must be at least 1")
        source = numpy_generator(seed, "payments")
        common = 0.5 * source.standard_normal((runs, self.dimension))
        offsets = self.arm_deviation * source.standard_normal((runs, self.arms))
        special = source.standard_normal((runs, self.arms, self.dimension)) / np.sqrt(self.dimension)
        return PaymentWorld(self, common, offsets, self.interaction * special)


@dataclass(frozen=True, eq=False)
class PaymentWorld:
    """Payments with their weights drawn."""

    payments: Payments
    common: Float64[np.ndarray, "runs dimension"]
    offsets: Float64[np.ndarray, "runs arms"]
    special: Float64[np.ndarray, "runs arms dimension"]

    def contexts(
        self, events: int, generator: np.random.Generator
    ) -> tuple[Float64[np.ndarray, "runs events dimension"], Bool[np.ndarray, "runs events arms"]]:
        """Contexts, and which routes are open."""
        shape = (len(self.common), events)
        contexts = generator.standard_normal((*shape, self.payments.dimension))
        return contexts, open_arms(generator.random((*shape, self.payments.arms)), self.payments.open_share)

    def chances(
        self, contexts: Float64[np.ndarray, "runs events dimension"]
    ) -> Float64[np.ndarray, "runs events arms"]:
        """Of success with each route."""
        common = np.einsum("red,rd->re", contexts, self.common)[..., None]
        special = np.einsum("red,rad->rea", contexts, self.special)
        return np.asarray(1 / (1 + np.exp(-(self.payments.base + common + self.offsets[:, None] + special))))

    @property
    def features(self) -> int:
        """Columns of :meth:`design`."""
        own = 1 + self.payments.dimension if self.payments.interactions else 1
        return 1 + self.payments.dimension + self.payments.arms * own

    def design(
        self, contexts: Float64[np.ndarray, "runs events ... dimension"], arms: Int64[np.ndarray, "runs events ..."]
    ) -> Float64[np.ndarray, "runs events ... features"]:
        """What a model sees of an event: a constant, the context, the route, and with interactions their product."""
        route, size = np.eye(self.payments.arms)[arms], self.payments.dimension
        found = np.empty((*arms.shape, self.features))
        found[..., 0] = 1
        found[..., 1 : 1 + size] = contexts
        found[..., 1 + size : 1 + size + self.payments.arms] = route
        if self.payments.interactions:
            of_both = route[..., None] * contexts[..., None, :]
            found[..., 1 + size + self.payments.arms :] = of_both.reshape(*arms.shape, -1)
        return found


@dataclass(frozen=True, eq=False)
class Batch:
    """The log of one generation. lag: events that pass until its outcome is known."""

    design: Float64[np.ndarray, "runs events features"]
    arms: Int64[np.ndarray, "runs events"]
    propensity: Float64[np.ndarray, "runs events"]
    uniform: Bool[np.ndarray, "runs events"]
    successes: Float64[np.ndarray, "runs events"]
    lag: Int64[np.ndarray, "runs events"]


@dataclass(frozen=True, eq=False)
class Generations:
    """What came of each generation, the first being uniform. Columns are generations.

    success: expected, of the policy on the contexts it met; ``realised`` is the share that did succeed.  best: of the
    best open routes there.  calibration, log_loss: of the model that made the policy, on events of uniform routing;
    of generation 0 they are nan, for it has none.  entropy: of the probabilities.  explored: share of events not on
    the best predicted route.  effective_share: ``(sum w)^2 / (n sum w^2)`` of the inverse propensities.  unresolved:
    share of its events whose outcome the next model did not know.
    """

    success: Float64[np.ndarray, "runs generations"]
    realised: Float64[np.ndarray, "runs generations"]
    best: Float64[np.ndarray, "runs generations"]
    calibration: Float64[np.ndarray, "runs generations"]
    log_loss: Float64[np.ndarray, "runs generations"]
    entropy: Float64[np.ndarray, "runs generations"]
    explored: Float64[np.ndarray, "runs generations"]
    effective_share: Float64[np.ndarray, "runs generations"]
    unresolved: Float64[np.ndarray, "runs generations"]

    @property
    def regret(self) -> Float64[np.ndarray, "runs generations"]:
        """Success lost against the best open routes."""
        return np.asarray(self.best - self.success)

    def swing(self, first: int = 2) -> Float64[np.ndarray, " runs"]:
        """Lag-1 autocorrelation of the changes of regret from generation ``first`` on; negative where it swings.

        Changes of pure noise about a level have one of -1/2, so it means something only beside that of a control.
        """
        change = np.diff(self.regret[:, first:], axis=-1)
        before, after = change[:, :-1], change[:, 1:]
        size = np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
        return np.asarray((before * after).sum(-1) / np.where(size > 0, size, 1.0))

    def amplitude(self, last: int = 5) -> Float64[np.ndarray, " runs"]:
        """Largest less smallest regret of the last generations."""
        tail = self.regret[:, -last:]
        return np.asarray(tail.max(-1) - tail.min(-1))


@paper(
    "2412.00569",
    title="Contextual Bandits in Payment Processing: Non-uniform Exploration and Supervised Learning",
    family="bandits",
    roles=("policy", "schedule", "metric"),
    year=2024,
    name="regression_oracle_cb",
    tags=("learning",),
)
@dataclass(frozen=True)
class BatchedDeployment:
    """A supervised model of success, explored around, logged with propensities and retrained in generations.

    Generation ``g`` routes by ``p = (1 - floor) exploration(f_g) + floor / K`` of the open routes, where ``f_g`` was
    fitted to the events of the last ``window`` generations whose outcome was known when it was fitted. An event whose
    outcome is not known is left out, not counted as a failure. Generation 0 routes uniformly.

    The paper's abstract says that exploration around a model does better at once than uniform exploration, and that
    later generations can get worse, or swing, since the logs of a good policy hold few failures. The protocol in
    detail is a reconstruction; the paper's own numbers come from production and cannot be had.

    exploration: of the predictions.  regressor: None for :class:`LogisticRegression`.
    window: generations that a fit sees; None for all.
    weighting: of events in a fit: ``"none"``; ``"inverse"``, ``1 / propensity`` cut at ``clip``; ``"balanced"``,
    successes and failures weigh the same in sum; ``"uniform_slice"``, only those that the floor's uniform draw routed.
    clip: of inverse propensities, at least 1.  floor: share of uniform exploration.
    mean_lag: mean number of events that pass until an outcome is known, geometric; 0 for at once.
    logs: ``"uniform"`` is a control: what is fitted to is routed uniformly whatever the policy, whose success is still
    what is reported. ``realised`` and all that is said of the log are then of uniform routing.

    Raises :class:`InputError` for values out of range, and for ``"uniform_slice"`` without a floor.
    """

    exploration: Exploration = InverseGap()
    regressor: Regressor | None = field(default=None)
    window: int | None = 1
    weighting: Weighting = "none"
    clip: float = 50.0
    floor: float = 0.0
    mean_lag: float = 0.0
    logs: Literal["own", "uniform"] = "own"

    def __post_init__(self) -> None:
        for name, fits, allowed in (
            ("window", self.window is None or self.window >= 1, "at least 1 or None"),
            (
                "weighting",
                self.weighting in ("none", "inverse", "balanced", "uniform_slice"),
                "none, inverse, balanced or uniform_slice",
            ),
            ("clip", self.clip >= 1, "at least 1"),
            ("floor", 0 <= self.floor <= 1, "in [0, 1]"),
            ("logs", self.logs in ("own", "uniform"), "own or uniform"),
            ("mean_lag", 0 <= self.mean_lag < np.inf, "at least 0 and finite"),
        ):
            if not fits:
                raise InputError(f"regression_oracle_cb.{name} = {getattr(self, name)!r}: must be {allowed}")
        if self.weighting == "uniform_slice" and self.floor == 0:
            raise InputError("regression_oracle_cb.weighting = 'uniform_slice': needs a floor, whose events it is of")

    def run(self, world: PaymentWorld, generations: int, events: int, seed: int) -> Generations:
        """Generations of so many events in all runs. Deployments with one seed meet the same contexts.

        Raises :class:`InputError` for fewer than 2 generations, or no events.
        """
        if generations < 2 or events < 1:
            raise InputError(f"generations = {generations}, events = {events}: must be at least 2 and at least 1")
        regressor = self.regressor or LogisticRegression()
        regressor.start(len(world.common), world.features)
        batches: list[Batch] = []
        rows = []
        for number in range(generations):
            if number:
                self._fit(regressor, batches)
            batch, row = self._deploy(regressor if number else None, world, events, seed, number)
            batches = [*batches, batch][-(self.window or generations) :]
            rows.append(row)
        return Generations(**{name: np.stack([row[name] for row in rows], 1) for name in rows[0]})

    def _fit(self, regressor: Regressor, batches: list[Batch]) -> None:
        weights = [self._weights(batch, age) for age, batch in enumerate(reversed(batches))][::-1]
        successes = np.concatenate([batch.successes for batch in batches], 1)
        counted = np.concatenate(weights, 1)
        if self.weighting == "balanced":
            for outcome in (0.0, 1.0):
                of_it = (successes == outcome) & (counted > 0)
                share = of_it.sum(-1, keepdims=True) / np.maximum((counted > 0).sum(-1, keepdims=True), 1)
                counted = np.where(of_it, 0.5 / np.maximum(share, 1e-12), counted)
        design = batches[0].design if len(batches) == 1 else np.concatenate([batch.design for batch in batches], 1)
        regressor.fit(design, successes, counted)

    def _weights(self, batch: Batch, age: int) -> np.ndarray:
        """Of the events of a batch, ``age`` generations before the newest; 0 for outcomes that are not known."""
        events = batch.lag.shape[1]
        known = resolved(batch.lag, age)
        if self.weighting == "uniform_slice":
            return np.asarray(known & batch.uniform, dtype=np.float64)
        if self.weighting == "inverse":
            return np.asarray(np.where(known, np.minimum(1 / batch.propensity, self.clip), 0.0))
        return np.broadcast_to(known, (len(known), events)).astype(np.float64)

    def _deploy(
        self, model: Regressor | None, world: PaymentWorld, events: int, seed: int, number: int
    ) -> tuple[Batch, dict[str, np.ndarray]]:
        named = {what: numpy_generator(seed, "generation", number, what) for what in ("contexts", "pulls", "outcomes")}
        contexts, feasible = world.contexts(events, named["contexts"])
        count = feasible.sum(-1, keepdims=True)
        predicted = None if model is None else _of_all_arms(model, world, contexts)
        routed = feasible / count if predicted is None else self.exploration(np.clip(predicted, 0, 1), feasible)
        probabilities = floored(routed, self.floor, feasible)
        logging = probabilities if self.logs == "own" else feasible / count
        arms = draw(logging, named["pulls"].random(feasible.shape[:2]))
        propensity = _taken(logging, arms)
        # Given the route, the chance that it was the floor's uniform draw that chose it.
        by_floor = named["pulls"].random(arms.shape) * propensity < self.floor / count[..., 0]
        chances = world.chances(contexts)
        successes = (named["outcomes"].random(arms.shape) < _taken(chances, arms)).astype(np.float64)
        lag = named["outcomes"].geometric(1 / (1 + self.mean_lag), arms.shape) - 1
        batch = Batch(world.design(contexts, arms), arms, propensity, by_floor, successes, lag)
        inverse = 1 / propensity
        best = np.where(feasible, predicted if predicted is not None else probabilities, -np.inf).argmax(-1)
        row = {
            "success": (probabilities * chances).sum(-1).mean(-1),
            "realised": successes.mean(-1),
            "best": np.where(feasible, chances, -np.inf).max(-1).mean(-1),
            "entropy": -(probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0))).sum(-1).mean(-1),
            "explored": (arms != best).mean(-1),
            "effective_share": inverse.sum(-1) ** 2 / (events * (inverse**2).sum(-1)),
            "unresolved": 1 - resolved(lag, 0).mean(-1),
            **_judged(predicted, chances, feasible),
        }
        return batch, row


def resolved(lag: Int64[np.ndarray, "runs events"], age: int) -> Bool[np.ndarray, "runs events"]:
    """Which outcomes are known at the end of the batch that comes ``age`` batches of the same size later."""
    events = lag.shape[1]
    return np.asarray(np.arange(events) + lag < (age + 1) * events)


def _judged(
    predicted: np.ndarray | None, chances: np.ndarray, feasible: np.ndarray, bins: int = 10
) -> dict[str, np.ndarray]:
    """Calibration error over equal bins, and log loss, both exact for events routed uniformly over open routes."""
    if predicted is None:
        nothing = np.full(len(chances), np.nan)
        return {"calibration": nothing, "log_loss": nothing}
    weight = (feasible / feasible.sum(-1, keepdims=True)).reshape(len(chances), -1)
    said, true = (values.reshape(len(chances), -1) for values in (np.clip(predicted, 1e-9, 1 - 1e-9), chances))
    weight = weight / weight.sum(-1, keepdims=True)
    loss = -(weight * (true * np.log(said) + (1 - true) * np.log1p(-said))).sum(-1)
    place = np.minimum((said * bins).astype(int), bins - 1)
    place = place + bins * np.arange(len(place))[:, None]
    gaps = np.bincount(place.ravel(), (weight * (said - true)).ravel(), bins * len(place)).reshape(-1, bins)
    return {"calibration": np.abs(gaps).sum(-1), "log_loss": loss}


def _of_all_arms(model: Regressor, world: PaymentWorld, contexts: np.ndarray) -> np.ndarray:
    arms = np.arange(world.payments.arms)
    shape = (*contexts.shape[:2], len(arms))
    return model.predict(world.design(contexts[:, :, None], np.broadcast_to(arms, shape)))


def _taken(values: np.ndarray, arms: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, arms[..., None], -1)[..., 0]
