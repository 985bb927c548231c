"""Bandits whose arms have states that only playing and resting move: simulation, exact optimum, play."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from stratagem.errors import InputError
from stratagem.seeding import numpy_generator

States = Int64[np.ndarray, "runs arms"]
Played = Bool[np.ndarray, "runs arms"]

LARGEST = 20_000
"""Joint states of the largest problem whose optimum is worked out."""


class RestingBandit(ABC):
    """Arms with states numbered from the least to the best rested, known to all; at most ``slots`` play a round.

    payoffs: mean payoff of every arm in every state, for every run, in [0, ``largest``] and non-decreasing along the
    states, on which all guarantees rest. What is paid is 0 or ``largest``, with this mean; ``noisy=False`` pays the
    mean itself. slots: at least 0.

    Raises :class:`InputError` for payoffs that are out of range or decrease, and for slots out of range.
    """

    what: ClassVar[str] = "payoffs"

    def __init__(
        self,
        payoffs: Float64[np.ndarray, "runs arms states"],
        slots: int = 1,
        largest: float = 1.0,
        noisy: bool = True,
    ) -> None:
        payoffs = np.asarray(payoffs, dtype=np.float64)
        if payoffs.ndim != 3 or not payoffs.size:
            raise InputError(f"{self.what}: must be of at least one run, arm and state")
        if not 0 < largest < np.inf:
            raise InputError(f"largest = {largest}: must be positive and finite")
        if not np.all((payoffs >= 0) & (payoffs <= largest)):
            raise InputError(f"{self.what}: must be in [0, {largest:g}]")
        if np.any(np.diff(payoffs, axis=-1) < -1e-12):
            raise InputError(f"{self.what}: may not fall the longer an arm rests; nothing is guaranteed then")
        if slots < 0:
            raise InputError(f"slots = {slots}: must be at least 0")
        self.payoffs, self.slots, self.largest, self.noisy = payoffs, slots, largest, noisy
        self.runs, self.arms, self.states = map(int, payoffs.shape)

    @abstractmethod
    def after(self, states: States, played: Played) -> States:
        """The states one round later."""

    def rested(self) -> States:
        """All arms fully rested, as a play begins."""
        return np.full((self.runs, self.arms), self.states - 1)

    def paid(self, states: States) -> Float64[np.ndarray, "runs arms"]:
        """Mean payoff of each arm if it were played now."""
        return np.take_along_axis(self.payoffs, states[..., None], -1)[..., 0]

    def best_average(self, tolerance: float = 1e-6) -> Float64[np.ndarray, " runs"]:
        """The largest average payoff per round of any policy, by value iteration over joint states.

        tolerance: the result is off by at most half of it.
        Raises :class:`InputError` where there are more than ``LARGEST`` joint states.
        """
        joint = self.states**self.arms
        if joint > LARGEST:
            raise InputError(f"{joint:,} joint states: more than {LARGEST:,}; take fewer arms or states")
        every = np.array(list(product(range(self.states), repeat=self.arms)))
        places = self.states ** np.arange(self.arms)[::-1]
        actions = [
            np.isin(np.arange(self.arms), chosen)
            for count in range(min(self.slots, self.arms) + 1)
            for chosen in combinations(range(self.arms), count)
        ]
        arms = np.arange(self.arms)
        earned = [self.payoffs[:, arms, every][..., played].sum(-1) for played in actions]
        then = [self.after(every, np.broadcast_to(played, every.shape)) @ places for played in actions]
        value = np.zeros((self.runs, joint))
        while True:
            # Half of the time nothing happens: without that, values of a cycle would go round for ever.
            best = np.max([paid + value[:, after] for paid, after in zip(earned, then, strict=True)], 0)
            change = (best - value) / 2
            low, high = change.min(-1), change.max(-1)
            if np.all(high - low < tolerance / 2):
                return np.asarray(high + low)
            value = value + change - change[:, :1]


class RecoveringBandit(RestingBandit):
    """An arm pays by the rounds since its last play: state ``d - 1`` of ``longest`` when that was ``d`` rounds ago.

    payoffs: the recovery functions, ``R(1)`` to ``R(longest)``, constant beyond.
    """

    what = "recovery"

    def after(self, states: States, played: Played) -> States:
        """Back to the first state, or one on."""
        return np.where(played, 0, np.minimum(states + 1, self.states - 1))

    @classmethod
    def drawn(cls, runs: int, seed: int, arms: int = 8, slots: int = 2, longest: int = 6) -> RecoveringBandit:
        """Recoveries that rise by random steps to a random height."""
        source = numpy_generator(seed, "recovering bandit")
        steps = source.dirichlet(np.full(longest, 0.7), (runs, arms))
        heights = source.uniform(0.2, 1.0, (runs, arms, 1))
        return cls(np.minimum(heights * np.cumsum(steps, -1), 1.0), slots)


class LastSwitchBandit(RestingBandit):
    """An arm pays by how long it has been played or rested without a switch.

    The states are ``-tired, ..., -1, 1, ..., payoffs.shape[-1] - tired``: ``-k`` after ``k`` plays in a row, ``k``
    after ``k`` rounds of rest; an arm stays at either end.

    tired: states of having been played, at least 1 and fewer than all. Raises :class:`InputError` otherwise.
    """

    def __init__(
        self, payoffs: Float64[np.ndarray, "runs arms states"], tired: int, slots: int = 1, noisy: bool = True
    ) -> None:
        super().__init__(payoffs, slots, noisy=noisy)
        if not 1 <= tired < self.states:
            raise InputError(f"tired = {tired}: must be from 1 to {self.states - 1}, fewer than the states")
        self.tired = tired

    @property
    def fresh(self) -> int:
        """How many states of rest there are."""
        return self.states - self.tired

    def after(self, states: States, played: Played) -> States:
        """-1 or one more tired; 1 or one better rested."""
        tired = states < self.tired
        plays = np.where(tired, np.maximum(states - 1, 0), self.tired - 1)
        rests = np.where(tired, self.tired, np.minimum(states + 1, self.states - 1))
        return np.where(played, plays, rests)

    @classmethod
    def drawn(cls, runs: int, seed: int, arms: int = 4, fresh: int = 5, tired: int = 3) -> LastSwitchBandit:
        """Payoffs that rise by random steps from the most tired state to the best rested one."""
        source = numpy_generator(seed, "last switch bandit")
        steps = source.dirichlet(np.full(fresh + tired, 0.7), (runs, arms))
        heights = source.uniform(0.2, 1.0, (runs, arms, 1))
        return cls(np.minimum(heights * np.cumsum(steps, -1), 1.0), tired)

    @classmethod
    def recharging(cls, recovery: Float64[np.ndarray, "runs arms delays"], noisy: bool = True) -> LastSwitchBandit:
        """The special case that pays ``R(d)`` by the rounds ``d`` since the last play: one slot of recovery."""
        return cls(np.asarray(recovery), tired=1, noisy=noisy)


class Scheduler(ABC):
    """Says which arms play. ``start`` begins anew."""

    @abstractmethod
    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Get ready for so many rounds. One that has to learn the payoffs may not read them from the bandit."""

    @abstractmethod
    def choose(self, number: int, states: States) -> Played:
        """Which arms play in this round, at most ``slots`` of each run."""

    def update(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Take note of what the arms that played paid; 0 for the others."""

    def guarantee(
        self, bandit: RestingBandit, rounds: Int64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "runs points"] | None:
        """What theory says it expects to earn less than the bound on any policy, at most, after so many rounds.

        None where no theorem applies, or none that names its constants.
        """
        return None


@dataclass
class BestNow(Scheduler):
    """Plays the arms that pay most now, and does not look ahead. It knows the payoffs."""

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Nothing to plan."""
        self._bandit = bandit

    def choose(self, number: int, states: States) -> Played:
        """The largest payoffs now, none that pays nothing; of arms that tie, the first."""
        paid = self._bandit.paid(states)
        order = np.argsort(-paid, axis=-1, kind="stable")[:, : self._bandit.slots]
        played = np.zeros(states.shape, dtype=bool)
        np.put_along_axis(played, order, True, -1)
        return played & (paid > 0)


@dataclass
class RoundRobin(Scheduler):
    """Plays one arm after the other, as many a round as there are slots."""

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Nothing to plan."""
        self._arms, self._slots = bandit.arms, min(bandit.slots, bandit.arms)

    def choose(self, number: int, states: States) -> Played:
        """The next ones in turn."""
        turn = (number * self._slots + np.arange(self._slots)) % self._arms
        return np.broadcast_to(np.isin(np.arange(self._arms), turn), states.shape)


@dataclass
class RestBlind(Scheduler):
    """Plays the arms of the largest upper bounds ``mean + sqrt(2 ln t / n)``, blind to how long they rested."""

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """No data."""
        self._slots, self._largest = min(bandit.slots, bandit.arms), bandit.largest
        self._count = np.zeros((bandit.runs, bandit.arms))
        self._total = np.zeros((bandit.runs, bandit.arms))

    def choose(self, number: int, states: States) -> Played:
        """The largest bounds; arms that nobody played first."""
        count = np.maximum(self._count, 1)
        bound = self._total / count + self._largest * np.sqrt(2 * np.log(number + 1) / count)
        order = np.argsort(-np.where(self._count > 0, bound, np.inf), axis=-1, kind="stable")[:, : self._slots]
        played = np.zeros(states.shape, dtype=bool)
        np.put_along_axis(played, order, True, -1)
        return played

    def update(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Count."""
        self._count += played
        self._total += payoffs


def follow(
    bandit: RestingBandit,
    scheduler: Scheduler,
    rounds: int,
    seed: int,
    *,
    progress: Callable[[int], None] = lambda number: None,
) -> Float64[np.ndarray, "runs rounds"]:
    """Mean payoffs that a scheduler collects in each round, exact, all arms rested at the start.

    progress: called with the number of rounds played.
    Raises :class:`InputError` for no rounds, and for a scheduler that plays more arms than there are slots.
    """
    if rounds < 1:
        raise InputError(f"rounds = {rounds}: must be at least 1")
    noise = numpy_generator(seed, "resting bandit", "noise")
    scheduler.start(bandit, rounds, numpy_generator(seed, "resting bandit", "plays"))
    states, collected = bandit.rested(), np.empty((bandit.runs, rounds))
    for number in range(rounds):
        played = scheduler.choose(number, states)
        most = int(played.sum(-1).max())
        if most > bandit.slots:
            raise InputError(f"{type(scheduler).__name__}: played {most} arms in a round of {bandit.slots} slots")
        mean = np.where(played, bandit.paid(states), 0.0)
        paid = bandit.largest * (noise.random(mean.shape) * bandit.largest < mean) if bandit.noisy else mean
        collected[:, number] = mean.sum(-1)
        scheduler.update(states, played, np.asarray(paid, dtype=np.float64))
        states = bandit.after(states, played)
        progress(number + 1)
    return collected


class Confidence:
    """Upper bounds on the payoffs of every state from what was seen: ``min(largest, mean + width)``, made monotone.

    ``width = confidence largest sqrt(2 ln(arms states rounds) / n)``. Since payoffs do not fall the longer an arm
    rests, a bound for a state holds for all less rested ones: each is lowered to the least of those after it.
    """

    def __init__(self, bandit: RestingBandit, rounds: int, confidence: float = 1.0) -> None:
        shape = (bandit.runs, bandit.arms, bandit.states)
        self.count, self.total = np.zeros(shape), np.zeros(shape)
        self._largest = bandit.largest
        self._width = confidence * bandit.largest * np.sqrt(2 * np.log(bandit.arms * bandit.states * rounds))

    def note(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Count what was paid in the states it was paid in."""
        runs, arms = np.nonzero(played)
        self.count[runs, arms, states[runs, arms]] += 1
        self.total[runs, arms, states[runs, arms]] += payoffs[runs, arms]

    def bounds(self) -> Float64[np.ndarray, "runs arms states"]:
        """Upper bounds, non-decreasing along the states."""
        count = np.maximum(self.count, 1)
        upper = np.where(self.count > 0, self.total / count + self._width / np.sqrt(count), np.inf)
        upper = np.minimum(upper, self._largest)
        return np.minimum.accumulate(upper[..., ::-1], -1)[..., ::-1]

    def means(self) -> Float64[np.ndarray, "runs arms states"]:
        """Means, made non-decreasing from below; 0 where nothing was seen."""
        return np.maximum.accumulate(self.total / np.maximum(self.count, 1), -1)
