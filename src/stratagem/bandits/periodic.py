"""Purely periodic policies for recovering rewards: an upper bound, periods, offsets, and learning them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int64

from stratagem.bandits.scheduling import Confidence, Played, RecoveringBandit, RestingBandit, Scheduler, States
from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.validation import validate_fields

Recovery = Float64[np.ndarray, "arms delays"]
"""``R(1), R(2), ...`` of every arm; constant after the last."""


@dataclass(frozen=True)
class Segment:
    """A piece of an arm's envelope: from rate ``1 / start`` to ``1 / end`` (0 where a period is None) it gains."""

    arm: int
    start: int | None
    end: int
    slope: float

    @cached_property
    def length(self) -> Fraction:
        """Of rate that it takes."""
        return Fraction(1, self.end) - (Fraction(1, self.start) if self.start else 0)


@dataclass(frozen=True, eq=False)
class PeriodicPlan:
    """Arm ``i`` plays in the rounds ``t`` with ``t = offsets[i] mod periods[i]``; never where its period is 0."""

    periods: Int64[np.ndarray, " arms"]
    offsets: Int64[np.ndarray, " arms"]

    def value(self, recovery: Recovery) -> float:
        """Average payoff per round, ``sum_i R_i(period) / period``."""
        used = np.flatnonzero(self.periods)
        delay = np.minimum(self.periods[used], recovery.shape[1])
        return float((recovery[used, delay - 1] / self.periods[used]).sum())

    def load(self) -> int:
        """The most arms that play in one round, over the least common multiple of the periods."""
        used = np.flatnonzero(self.periods)
        if not len(used):
            return 0
        rounds = np.arange(math.lcm(*self.periods[used].tolist()))
        return int(sum((rounds - self.offsets[arm]) % self.periods[arm] == 0 for arm in used).max())


@paper(
    "2106.14813",
    title="Purely Periodic Policies: Offline Planning and Online Learning under Recovering Rewards",
    family="bandits",
    roles=("planner", "policy", "solver"),
    year=2021,
    name="recovering_rewards",
    tags=("learning",),
)
@dataclass(frozen=True)
class PurelyPeriodic:
    """Every arm plays at a fixed period; periods by an envelope and rounding, so that they fit into ``K`` slots.

    ``F_i`` is the concave envelope of ``(0, 0)`` and ``(1 / d, R_i(d) / d)``, made non-decreasing, and
    ``max sum F_i(x_i)`` over rates with ``sum x_i <= K`` is more than any policy earns a round but for
    ``O(arms R_max)`` in all. Greedily by slope, with a budget of ``K - classes + 1``, all rates but one are of the form
    ``1 / d``; the one is dropped to such a rate. Each period is then raised to the next of the form ``j 2^l`` with
    ``classes <= j < 2 classes``, where those of one ``j`` pack into slots without a gap. This earns at least
    ``classes / (classes + 1) (K - classes) / K`` of the bound.

    The abstract states model and guarantees; envelope, rounding and packing are a reconstruction with a proof of its
    own, and so is what is done beyond it: unless ``classes`` is given, all up to ``2 sqrt(K)`` are tried, each with the
    largest budget whose periods happen to fit, and the best plan is taken. With one slot, where the guarantee says
    nothing, the one arm that did not fit, alone at its best period, is tried too.

    classes: that one only, with the budget that always fits; more than ``K`` counts as ``K``.
    Raises :class:`InputError` below 1.
    """

    classes: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        validate_fields(self, "recovering_rewards")

    def plan(self, recovery: Recovery, slots: int) -> PeriodicPlan:
        """The plan of a problem. Raises :class:`InputError` for recoveries that fall or are negative."""
        recovery = _checked(recovery)
        if slots < 1:
            return _packed([0] * len(recovery))
        segments = _segments(recovery)
        found = [_packed(periods) for periods in self._candidates(segments, len(recovery), slots)]
        if slots == 1:
            _, left_out = _greedy(segments, len(recovery), 1)
            if left_out is not None:
                best = 1 + int((recovery[left_out] / np.arange(1, recovery.shape[1] + 1)).argmax())
                found.append(_packed([best if arm == left_out else 0 for arm in range(len(recovery))]))
        return max(found, key=lambda plan: plan.value(recovery))

    def share(self, slots: int) -> float:
        """Of the bound on any policy, what a plan is proved to earn at least."""
        tried = range(1, 2 * math.ceil(math.sqrt(slots)) + 1) if self.classes is None else [self.classes]
        return max((c / (c + 1) * (slots - c) / slots for c in tried if c < slots), default=0.0)

    def _candidates(self, segments: list[Segment], arms: int, slots: int) -> Iterator[list[int]]:
        """Periods that fit into the slots."""
        if self.classes is not None:
            classes = min(self.classes, slots)
            periods, _ = _greedy(segments, arms, slots - classes + 1)
            yield [_raised(period, classes) for period in periods]
            return
        for classes in range(1, 2 * math.ceil(math.sqrt(slots)) + 1):
            for budget in range(slots, max(slots - classes, 0), -1):
                periods, _ = _greedy(segments, arms, budget)
                raised = [_raised(period, classes) for period in periods]
                if _channels(raised) <= slots:
                    yield raised
                    break


def upper_bound(recovery: Recovery, slots: int) -> float:
    """``max sum_i F_i(x_i)`` with ``sum x_i <= slots``, ``0 <= x_i <= 1``: more than any policy's average payoff.

    Raises :class:`InputError` for recoveries that fall or are negative.
    """
    value, budget = 0.0, Fraction(max(slots, 0))
    for segment in _segments(_checked(recovery)):
        taken = min(segment.length, budget)
        value += segment.slope * float(taken)
        budget -= taken
    return value


def envelope(recovery: Float64[np.ndarray, " delays"]) -> list[int]:
    """Periods of the points ``(1 / d, R(d) / d)`` on the rising part of the concave envelope, longest first."""
    points = [(Fraction(1, d), float(recovery[d - 1]) / d, d) for d in range(len(recovery), 0, -1)]
    hull: list[tuple[Fraction, float, int]] = [(Fraction(0), 0.0, 0)]
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], point) + 1e-15:
            hull.pop()
        if _slope(hull[-1], point) > 0:
            hull.append(point)
    return [period for _, _, period in hull[1:]]


def _slope(first: tuple[Fraction, float, int], second: tuple[Fraction, float, int]) -> float:
    return (second[1] - first[1]) / float(second[0] - first[0])


def _segments(recovery: Recovery) -> list[Segment]:
    """Of all arms, the steepest first; of one arm in their order, for its envelope is concave."""
    found = []
    for arm, rewards in enumerate(recovery):
        start: int | None = None
        for end in envelope(rewards):
            gained = rewards[end - 1] / end - (rewards[start - 1] / start if start else 0.0)
            piece = Segment(arm, start, end, 0.0)
            found.append(Segment(arm, start, end, float(gained) / float(piece.length)))
            start = end
    return sorted(found, key=lambda segment: -segment.slope)


def _greedy(segments: list[Segment], arms: int, budget: int) -> tuple[list[int], int | None]:
    """The period of every arm, 0 for never, and the arm of the first segment that did not fit."""
    periods, left = [0] * arms, Fraction(budget)
    for segment in segments:
        if segment.length > left:
            return periods, segment.arm
        left -= segment.length
        periods[segment.arm] = segment.end
    return periods, None


@cache
def _raised(period: int, classes: int) -> int:
    """The least ``j 2^l`` that is an integer and not below the period, over ``classes <= j < 2 classes``; 0 for 0."""
    odd = {j // (j & -j) for j in range(classes, 2 * classes)}
    return min(one << max(-(-period // one) - 1, 0).bit_length() for one in odd) if period else 0


def _channels(periods: list[int]) -> int:
    """Slots that the packing takes: each family, of one odd part, has channels of its own."""
    loads: dict[int, Fraction] = {}
    for period in filter(None, periods):
        odd = period // (period & -period)
        loads[odd] = loads.get(odd, Fraction(0)) + Fraction(1, period)
    return sum(map(math.ceil, loads.values()))


def _packed(periods: list[int]) -> PeriodicPlan:
    """Offsets such that arms whose periods have one odd part share channels of one play a round, first fit.

    Periods of a family in rising order each halve a free residue class until it fits, so nothing is left between.
    """
    offsets = np.zeros(len(periods), dtype=np.int64)
    free: dict[int, list[tuple[int, int]]] = {}
    for arm in sorted(range(len(periods)), key=periods.__getitem__):
        period = periods[arm]
        if not period:
            continue
        family = free.setdefault(period // (period & -period), [])
        if not family:
            family.extend((period, residue) for residue in range(period))
        step, offset = family.pop(max(range(len(family)), key=lambda place: family[place][0]))
        while step < period:
            family.append((2 * step, offset + step))
            step *= 2
        offsets[arm] = offset
    return PeriodicPlan(np.array(periods, dtype=np.int64), offsets)


def _checked(recovery: Recovery) -> Recovery:
    recovery = np.asarray(recovery, dtype=np.float64)
    if recovery.ndim != 2 or not recovery.size or not np.all((recovery >= 0) & np.isfinite(recovery)):
        raise InputError("recovery: must be of at least one arm and delay, not negative, finite")
    if np.any(np.diff(recovery, axis=-1) < -1e-12):
        raise InputError("recovery: may not fall the longer an arm rests; take its running maximum if waiting is free")
    return recovery


# ---- as schedulers --------------------------------------------------------------------------------------------------


class _Periods(Scheduler):
    """Plays plans, one for each run."""

    _periods: States
    _offsets: States

    def adopt(self, payoffs: Float64[np.ndarray, "runs arms delays"], slots: int, planner: PurelyPeriodic) -> None:
        """Plan for these payoffs from now on."""
        plans = [planner.plan(recovery, slots) for recovery in payoffs]
        self._periods = np.stack([plan.periods for plan in plans])
        self._offsets = np.stack([plan.offsets for plan in plans])

    def choose(self, number: int, states: States) -> Played:
        """Arms whose turn it is."""
        turn = (number - self._offsets) % np.maximum(self._periods, 1) == 0
        return np.asarray(turn & (self._periods > 0))


@dataclass
class KnownPeriods(_Periods):
    """The plan of a planner that knows the recovery functions."""

    planner: PurelyPeriodic = PurelyPeriodic()

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Plan once."""
        self.adopt(bandit.payoffs, bandit.slots, self.planner)

    def guarantee(
        self, bandit: RestingBandit, rounds: Int64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "runs points"] | None:
        """The share the plan may miss, and a play of every arm, which may come a period late for the first time."""
        if not isinstance(bandit, RecoveringBandit):
            return None
        most = np.array([upper_bound(recovery, bandit.slots) for recovery in bandit.payoffs])
        missed = (1 - self.planner.share(bandit.slots)) * most[:, None] * rounds
        return np.asarray(missed + bandit.arms * bandit.largest)


@dataclass
class LearnedPeriods(_Periods):
    """Plans anew every ``phase`` rounds for upper confidence bounds on the recovery functions.

    Every play is counted for the rounds its arm had rested, those at the border of two phases too. The scheme in
    detail is a reconstruction; the abstract states a regret of about ``arms sqrt(rounds)``.

    phase: rounds; None for ``sqrt(rounds longest / arms)``, at least twice the longest delay.
    confidence: of the bounds, a factor on their width; 1 is what the guarantee needs.  planner: as offline.
    Raises :class:`InputError` for values out of range.
    """

    phase: Annotated[int, Ge(1)] | None = None
    confidence: Annotated[float, Gt(0)] = 1.0
    planner: PurelyPeriodic = PurelyPeriodic()

    def __post_init__(self) -> None:
        validate_fields(self, "learned_periods")

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """No data: every delay of every arm may pay the most there is."""
        self._seen = Confidence(bandit, rounds, self.confidence)
        self._slots = bandit.slots
        self._phase = self.phase or max(2 * bandit.states, round(math.sqrt(rounds * bandit.states / bandit.arms)))

    def choose(self, number: int, states: States) -> Played:
        """At the beginning of a phase, plan."""
        if number % self._phase == 0:
            self.adopt(self._seen.bounds(), self._slots, self.planner)
        return super().choose(number, states)

    def update(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Count by delay."""
        self._seen.note(states, played, payoffs)


@dataclass
class ExploreThenPlan(_Periods):
    """Plays every arm at every delay ``samples`` times, then plans once for the means.

    Arms take turns in groups of as many as there are slots; a group plays with delays ``1, ..., longest``, each
    ``samples`` times, while the others rest.

    samples: None for ``rounds^(2/3) / (cost of one)``, at least 1. Raises :class:`InputError` for fewer than 1.
    """

    samples: Annotated[int, Ge(1)] | None = None
    planner: PurelyPeriodic = PurelyPeriodic()

    def __post_init__(self) -> None:
        validate_fields(self, "explore_then_plan")

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Lay out the exploration."""
        self._seen, self._slots = Confidence(bandit, rounds), max(min(bandit.slots, bandit.arms), 1)
        delays = np.arange(1, bandit.states + 1)
        groups = -(-bandit.arms // self._slots)
        samples = self.samples or max(1, round(rounds ** (2 / 3) / (groups * delays.sum())))
        # The first play only begins the count: an arm that comes to its turn has rested for long.
        moments = np.cumsum([0, *np.repeat(delays, samples)])
        self._script = np.zeros((groups, moments[-1] + 1), dtype=bool)
        self._script[:, moments] = True

    def choose(self, number: int, states: States) -> Played:
        """The script, then the plan."""
        groups, length = self._script.shape
        if number < groups * length:
            group, moment = divmod(number, length)
            mine = np.arange(states.shape[1]) // self._slots == group
            return np.broadcast_to(mine & self._script[group, moment], states.shape)
        if number == groups * length:
            self.adopt(self._seen.means(), self._slots, self.planner)
        return super().choose(number, states)

    def update(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Count by delay."""
        self._seen.note(states, played, payoffs)
