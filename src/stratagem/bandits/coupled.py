"""Coupled restless bandits: arms that move up or down, and one feasible action for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float64, Int64

from stratagem.bandits.feasible import Actions, Capacities, Feasible, Interventions, Slots, Walk
from stratagem.errors import InputError, unknown
from stratagem.seeding import numpy_generator

ArmStates = Int64[np.ndarray, "batch arms"]

LARGEST = 20_000
"""Joint states of the largest problem that is worked out exactly."""


class Effect(Protocol):
    """The chance that an arm moves up, given the action."""

    def __call__(self, actions: Actions) -> Float64[np.ndarray, "actions arms"]:
        """One row for each action."""
        ...


@dataclass(frozen=True, eq=False)
class Pulls:
    """An entry of the action is an arm: it moves up with chance ``pulled`` where it is one, else ``rest``."""

    rest: Float64[np.ndarray, " arms"]
    pulled: Float64[np.ndarray, " arms"]

    def __call__(self, actions: Actions) -> Float64[np.ndarray, "actions arms"]:
        """One or the other."""
        return np.where(actions, self.pulled, self.rest)


@dataclass(frozen=True, eq=False)
class Sigmoids:
    """Entries help several arms: ``0.98 A (sigmoid(b <w, a> - x0) - sigmoid(-x0)) + 0.01`` moves an arm up.

    weights: ``w`` of each arm.  height, slope, middle: ``A``, ``b`` and ``x0``.
    """

    weights: Float64[np.ndarray, "arms entries"]
    height: Float64[np.ndarray, " arms"]
    slope: Float64[np.ndarray, " arms"]
    middle: Float64[np.ndarray, " arms"]

    def __call__(self, actions: Actions) -> Float64[np.ndarray, "actions arms"]:
        """0.01 where nothing helps."""
        helped = self.slope * (actions @ self.weights.T) - self.middle
        return np.asarray(0.98 * self.height * (_sigmoid(helped) - _sigmoid(-self.middle)) + 0.01)


class CoupledBandit:
    """Arms in states ``0, ..., S - 1``: each moves up by one with a chance that the action sets, else down by one.

    At either end it stays. An arm pays by the state it comes to. All that is summed here is exact.

    rewards: of each arm in each state.  effect: of an action.  feasible: actions.
    Raises :class:`InputError` for rewards that are not a table of finite numbers or do not fit the effect.
    """

    def __init__(self, rewards: Float64[np.ndarray, "arms states"], effect: Effect, feasible: Feasible) -> None:
        self.rewards = np.asarray(rewards, dtype=np.float64)
        if self.rewards.ndim != 2 or not self.rewards.size or not np.isfinite(self.rewards).all():
            raise InputError("rewards: must be finite, of at least one arm and state")
        self.arms, self.states = map(int, self.rewards.shape)
        self.effect, self.feasible = effect, feasible
        up = effect(np.zeros((1, feasible.entries), dtype=bool))
        if up.shape != (1, self.arms):
            raise InputError(f"effect: is on {up.shape[-1]} arms, the rewards are of {self.arms}")

    def expected(self, states: ArmStates, actions: Actions) -> Float64[np.ndarray, "batch actions"]:
        """Mean reward of the next step, for each state and each action."""
        below, above = self.neighbours(states)
        return np.asarray((above - below) @ self.effect(actions).T + below.sum(-1, keepdims=True))

    def neighbours(
        self, states: ArmStates
    ) -> tuple[Float64[np.ndarray, "batch arms"], Float64[np.ndarray, "batch arms"]]:
        """What each arm pays if it moves down, and if up."""
        arms = np.arange(self.arms)
        below = self.rewards[arms, np.maximum(states - 1, 0)]
        return np.asarray(below), np.asarray(self.rewards[arms, np.minimum(states + 1, self.states - 1)])

    def step(
        self, state: Int64[np.ndarray, " arms"], action: Bool[np.ndarray, " entries"], generator: np.random.Generator
    ) -> Int64[np.ndarray, " arms"]:
        """Where the arms move."""
        up = generator.random(self.arms) < self.effect(action[None])[0]
        return np.asarray(np.clip(state + np.where(up, 1, -1), 0, self.states - 1))

    def start(self, generator: np.random.Generator) -> Int64[np.ndarray, " arms"]:
        """Each arm in state 1 with chance 0.2, else 0."""
        return np.minimum((generator.random(self.arms) < 0.2).astype(np.int64), self.states - 1)

    def every_state(self) -> ArmStates:
        """All joint states, the last arm moving fastest. Raises :class:`InputError` for more than ``LARGEST``."""
        joint = self.states**self.arms
        if joint > LARGEST:
            raise InputError(f"{joint:,} joint states: more than {LARGEST:,}; take fewer arms or states")
        return np.array(list(product(range(self.states), repeat=self.arms)), dtype=np.int64)

    def from_start(self, values: Float64[np.ndarray, " joint"]) -> float:
        """Mean of a number of each joint state over where an episode starts."""
        states = self.every_state()
        high = min(1, self.states - 1)
        chance = np.where(states == high, 0.2 if high else 1.0, 0.0) + np.where((states == 0) & (high > 0), 0.8, 0.0)
        return float(chance.prod(-1) @ values)

    def best_values(self, rounds: int, discount: float = 1.0) -> Float64[np.ndarray, " joint"]:
        """Largest expected sum of rewards over so many rounds, from each joint state.

        Raises :class:`InputError` as :meth:`every_state` and :attr:`Feasible.every` do.
        """
        every, now = self._tables()
        values = np.zeros(len(now))
        for _ in range(rounds):
            values = (now + discount * self._after(values, every)).max(-1)
        return values

    def values_of(self, policy: CoupledPolicy, rounds: int, discount: float = 1.0) -> Float64[np.ndarray, " joint"]:
        """Expected sum of rewards of a policy over so many rounds, from each joint state.

        Raises :class:`InputError` as :meth:`best_values` does.
        """
        every, now = self._tables()
        share = policy.shares(self.every_state())
        values = np.zeros(len(now))
        for _ in range(rounds):
            values = (share * (now + discount * self._after(values, every))).sum(-1)
        return values

    def _tables(self) -> tuple[Actions, Float64[np.ndarray, "joint actions"]]:
        every = self.feasible.every
        return every, self.expected(self.every_state(), every)

    def _after(self, values: Float64[np.ndarray, " joint"], actions: Actions) -> Float64[np.ndarray, "joint actions"]:
        """Mean of the values one step later: arms move on their own, so one axis at a time."""
        up = self.effect(actions)
        found = np.broadcast_to(values.reshape((self.states,) * self.arms), (len(actions), *(self.states,) * self.arms))
        ladder = np.arange(self.states)
        for arm in range(self.arms):
            chance = up[:, arm].reshape(-1, *(1,) * self.arms)
            above = found.take(np.minimum(ladder + 1, self.states - 1), 1 + arm)
            below = found.take(np.maximum(ladder - 1, 0), 1 + arm)
            found = below + chance * (above - below)
        return found.reshape(len(actions), -1).T


class CoupledPolicy(ABC):
    """Says what to do in a joint state."""

    @abstractmethod
    def choose(self, states: ArmStates) -> Actions:
        """A feasible action for each state."""

    bandit: CoupledBandit

    def shares(self, states: ArmStates) -> Float64[np.ndarray, "batch actions"]:
        """Chance of each of the feasible actions, in the order in which they are counted."""
        every = self.bandit.feasible.every
        chosen = self.choose(states)
        return np.asarray((chosen[:, None] == every).all(-1), dtype=np.float64)


@dataclass
class RandomFeasible(CoupledPolicy):
    """Any of the feasible actions, all alike."""

    bandit: CoupledBandit
    generator: np.random.Generator

    def choose(self, states: ArmStates) -> Actions:
        """Drawn."""
        every = self.bandit.feasible.every
        return np.asarray(every[self.generator.integers(len(every), size=len(states))])

    def shares(self, states: ArmStates) -> Float64[np.ndarray, "batch actions"]:
        """The same for all."""
        every = len(self.bandit.feasible.every)
        return np.full((len(states), every), 1 / every)


@dataclass
class MyopicBest(CoupledPolicy):
    """The largest mean reward of the next step, over all feasible actions; the first of several."""

    bandit: CoupledBandit

    def choose(self, states: ArmStates) -> Actions:
        """By counting."""
        every = self.bandit.feasible.every
        return np.asarray(every[self.bandit.expected(states, every).argmax(-1)])


PROBLEMS = ("interventions", "walk", "slots", "capacities")
"""Kinds of coupling that :func:`drawn_problem` knows."""


def drawn_problem(kind: str, seed: int, arms: int = 6, budget: int = 2) -> CoupledBandit:
    """A random problem of four states in which looking ahead pays: valuable arms first lose by moving up.

    ``budget`` arms, at random, pay (0.2, 0.15, 0.1, R) in their states with R of 4, 5 or 6; the others pay (0.1, 0.15,
    0.2, R) with R of 1, 2 or 3. Where entries are arms, an arm moves up with chance U(0, 0.2), and if pulled with
    0.7 + U(0, 0.2).

    ``interventions``: three entries help three arms each; exactly ``3 max(1, budget // 3)`` are one; the first
    ``budget // 3`` groups at least need all three and are the valuable ones, the others move a little with one.
    ``walk``: on a random connected graph (a random tree and ``arms // 3`` more edges) instead of the authors' map.
    ``slots``: 5 slots, arms there in 2 and ``budget`` workers in 3 of them.
    ``capacities``: costs of 2 to 6, ``budget`` workers who bear 2 to 7.

    The constants are those of the authors' code; which arms are near the source of the walk is left to chance.
    Raises :class:`InputError` for an unknown kind, sizes below 1, and arms that are not whole groups of three.
    """
    if kind not in PROBLEMS:
        raise unknown("kind", kind, PROBLEMS)
    if arms < 1 or budget < 1:
        raise InputError(f"arms = {arms}, budget = {budget}: must be at least 1")
    source = numpy_generator(seed, "coupled bandit", kind)
    if kind == "interventions":
        return _interventions(source, arms, budget)
    valuable = np.isin(np.arange(arms), source.permutation(arms)[:budget])
    effect = Pulls(source.uniform(0, 0.2, arms), 0.7 + source.uniform(0, 0.2, arms))
    feasible: Feasible
    if kind == "walk":
        import networkx  # takes a while, for which no listing of techniques should wait

        tree = [(node, int(source.integers(node))) for node in range(1, arms)]
        missing = list(networkx.complement(networkx.Graph(tree)).edges) if arms > 2 else []
        more = source.permutation(len(missing))[: arms // 3]
        feasible = Walk(arms, [*tree, *(missing[one] for one in more)], int(source.integers(arms)), budget)
    elif kind == "slots":
        feasible = Slots(_some(source, arms, 5, 2), _some(source, budget, 5, 3), budget)
    else:
        feasible = Capacities(source.integers(2, 7, arms).tolist(), source.integers(2, 8, budget).tolist())
    return CoupledBandit(_rewards(source, valuable), effect, feasible)


def _interventions(source: np.random.Generator, arms: int, budget: int) -> CoupledBandit:
    if arms % 3:
        raise InputError(f"arms = {arms}: must be a multiple of 3, the size of a group, for interventions")
    groups = np.arange(arms) // 3
    hard = max(1, budget // 3)
    valuable = groups < hard
    effect = Sigmoids(
        3.0 * (groups[:, None] == groups),
        np.where(valuable, source.uniform(0.7, 1, arms), source.uniform(0.2, 0.5, arms)),
        np.where(valuable, source.uniform(1.4, 1.9, arms), 1.0),
        np.where(valuable, source.integers(9, 11, arms), source.integers(1, 3, arms)).astype(np.float64),
    )
    return CoupledBandit(_rewards(source, valuable), effect, Interventions(arms, 3 * hard))


def _rewards(source: np.random.Generator, valuable: Bool[np.ndarray, " arms"]) -> Float64[np.ndarray, "arms states"]:
    top = np.where(valuable, source.integers(4, 7, len(valuable)), source.integers(1, 4, len(valuable)))
    steps = np.where(valuable[:, None], [0.2, 0.15, 0.1], [0.1, 0.15, 0.2])
    return np.concatenate([steps, top[:, None]], -1)


def _some(source: np.random.Generator, rows: int, slots: int, count: int) -> Bool[np.ndarray, "rows slots"]:
    return source.permuted(np.tile(np.arange(slots) < count, (rows, 1)), axis=1)


def _sigmoid(values: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.asarray(1 / (1 + np.exp(-values)))
