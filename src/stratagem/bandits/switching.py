"""Last-switch bandits: cycles of rest and play by a linear program, rounded by virtual arms; learning the payoffs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float64, Int64

from stratagem.bandits.scheduling import Confidence, LastSwitchBandit, Played, RestingBandit, Scheduler, States
from stratagem.catalogue import paper
from stratagem.errors import BrokenRunError, InputError
from stratagem.validation import validate_fields

Payoffs = Float64[np.ndarray, "arms states"]
"""Of the states ``-tired, ..., -1, 1, ..., fresh``, non-decreasing."""

GUARANTEE = 1 - 1 / math.e
"""Share of the linear program's value that the virtual arms earn at least."""


@dataclass(frozen=True, eq=False)
class Cycles:
    """A solution of the linear program: how often each arm rests ``a`` rounds and then plays ``b``.

    frequency: by arm, ``a - 1`` and ``b - 1``; cycles a round.  steady: share of rounds in which an arm plays on at its
    floor.  payoffs: it was made for.  value: of the program, more than the average payoff of any policy.
    """

    frequency: Float64[np.ndarray, "arms rests plays"]
    steady: Float64[np.ndarray, " arms"]
    payoffs: Payoffs
    value: float

    def expected(self) -> float:
        """What the virtual arms earn a round on average, exact: the mean of the largest virtual payoff.

        At a fixed round arm ``i`` is at play ``j`` of a cycle with probability ``frequency``, independently of others;
        payoffs in order, each counts if no larger one is there.
        """
        chances, worth, owner = [], [], []
        fresh, tired = self.frequency.shape[1:]
        for arm, payoffs in enumerate(self.payoffs):
            for play in range(tired):
                cycles = self.frequency[arm, :, play:].sum(-1)
                if play == 0:
                    chances += cycles.tolist()
                    worth += payoffs[tired:].tolist()
                    owner += [arm] * fresh
                else:
                    chances.append(float(cycles.sum()))
                    worth.append(float(payoffs[tired - play]))
                    owner.append(arm)
            chances.append(float(self.steady[arm]))
            worth.append(float(payoffs[0]))
            owner.append(arm)
        none_yet, total = np.ones(len(self.payoffs)), 0.0
        for place in np.argsort(-np.array(worth), kind="stable"):
            others = np.prod(np.delete(none_yet, owner[place]))
            total += worth[place] * chances[place] * float(others)
            none_yet[owner[place]] -= chances[place]
        return total


@paper(
    "2306.00338",
    title="Last Switch Dependent Bandits with Monotone Payoff Functions",
    family="bandits",
    roles=("planner", "policy", "environment"),
    year=2023,
    name="lsd_bandits",
    tags=("learning",),
)
@dataclass(frozen=True)
class RestAndPlay:
    """A linear program over cycles "rest ``a`` rounds, play ``b``", rounded by independent virtual arms.

    With ``w_iab = mu_i(a) + sum_{j < b} mu_i(-j)`` maximise ``sum z_iab w_iab + sum y_i mu_i(-tired)`` subject to
    ``sum_ab (a + b) z_iab + y_i <= 1`` for every arm and ``sum b z_iab + sum y_i <= 1``. Every policy's time splits
    into such cycles, ``y`` being further plays at the most tired state, so the value is more than any policy earns a
    round. Each arm is then given one cycle with probability ``(a + b) z_iab`` and a random phase, for ever. In a round
    the arm of the largest virtual payoff among those whose cycle says "play" plays; the cycles of the others go on as
    if they had. Real plays are some of the virtual ones, so an arm is never more tired than its virtual self, and it
    earns at least as much; ``1 - 1 / e`` of the program's value in all.

    The abstract states model and factor. Program, rounding and proof are a reconstruction, not the authors' own.
    """

    def plan(self, payoffs: Payoffs, tired: int) -> Cycles:
        """Solve the program. payoffs: non-decreasing along the states.  tired: how many of them are negative.

        Raises :class:`InputError` for payoffs that fall or are not finite, and for ``tired`` out of range.
        """
        from scipy.optimize import linprog
        from scipy.sparse import coo_array

        payoffs = np.asarray(payoffs, dtype=np.float64)
        if payoffs.ndim != 2 or not payoffs.size or not np.isfinite(payoffs).all():
            raise InputError("payoffs: must be of at least one arm and state, finite")
        if np.any(np.diff(payoffs, axis=-1) < -1e-12):
            raise InputError("payoffs: may not fall the longer an arm rests; nothing is guaranteed then")
        arms, states = payoffs.shape
        if not 1 <= tired < states:
            raise InputError(f"tired = {tired}: must be from 1 to {states - 1}, fewer than the states")
        fresh = states - tired
        rests, plays = np.arange(1, fresh + 1), np.arange(1, tired + 1)
        # Payoffs of the plays 2, 3, ... of a cycle, summed.
        later = np.concatenate([np.zeros((arms, 1)), np.cumsum(payoffs[:, tired - 1 : 0 : -1], -1)], -1)
        worth = payoffs[:, tired:, None] + later[:, None, :]
        length = np.broadcast_to(rests[:, None] + plays, worth.shape)
        played = np.broadcast_to(plays, worth.shape)
        arm = np.broadcast_to(np.arange(arms)[:, None, None], worth.shape)
        columns = worth.size
        rows = np.concatenate([arm.ravel(), np.full(columns, arms), np.arange(arms), np.full(arms, arms)])
        steady = columns + np.arange(arms)
        places = np.concatenate([np.arange(columns), np.arange(columns), steady, steady])
        entries = np.concatenate([length.ravel(), played.ravel(), np.ones(2 * arms)]).astype(np.float64)
        solved = linprog(
            -np.concatenate([worth.ravel(), payoffs[:, 0]]),
            A_ub=coo_array((entries, (rows, places)), shape=(arms + 1, columns + arms)).tocsr(),
            b_ub=np.ones(arms + 1),
            method="highs",
        )
        if not solved.success:
            raise BrokenRunError(f"lsd_bandits: the linear program was not solved ({solved.message})")
        found = np.maximum(solved.x, 0)
        return Cycles(found[:columns].reshape(worth.shape), found[columns:], payoffs, float(-solved.fun))


class _VirtualArms(Scheduler):
    """Plays the largest virtual payoff among the virtual arms that play."""

    _rest: States
    _length: States
    _phase: States
    _worth: Float64[np.ndarray, "runs arms states"]

    def draw(self, plans: list[Cycles], generator: np.random.Generator) -> None:
        """Give every arm of every run a cycle and a phase; none has length 0, playing on for ever rest 0."""
        tired = plans[0].frequency.shape[2]
        rests, plays = (np.arange(1, size + 1) for size in plans[0].frequency.shape[1:])
        lengths = (rests[:, None] + plays).ravel()
        resting = np.repeat(rests, len(plays))
        share = np.stack([plan.frequency.reshape(len(plan.payoffs), -1) * lengths for plan in plans])
        share = np.concatenate([share, np.stack([plan.steady for plan in plans])[..., None]], -1)
        # The program's tolerance may leave a little more than 1.
        share = share / np.maximum(share.sum(-1, keepdims=True), 1)
        edges = np.cumsum(share, -1)
        kind = (edges <= generator.random(edges.shape[:2])[..., None]).sum(-1)
        self._rest = np.concatenate([resting, [0, 0]])[kind]
        self._length = np.concatenate([lengths, [1, 0]])[kind]
        self._phase = (generator.random(kind.shape) * self._length).astype(np.int64)
        self._tired = tired
        self._worth = np.stack([plan.payoffs for plan in plans])

    def virtual_states(self, number: int) -> tuple[Played, States]:
        """Which virtual arms play in a round, and the states they do it in."""
        place = (number + self._phase) % np.maximum(self._length, 1)
        plays = (place >= self._rest) & (self._length > 0)
        since = place - self._rest
        first = self._tired + self._rest - 1
        state = np.where(since == 0, first, np.maximum(self._tired - since, 0))
        state = np.where(self._rest == 0, 0, state)
        return plays, np.where(plays, state, 0)

    def choose(self, number: int, states: States) -> Played:
        """One arm, or none."""
        plays, virtual = self.virtual_states(number)
        worth = np.take_along_axis(self._worth, virtual[..., None], -1)[..., 0]
        best = np.where(plays, worth, -np.inf).argmax(-1)
        return np.asarray(plays & (np.arange(plays.shape[1]) == best[:, None]))


@dataclass
class KnownCycles(_VirtualArms):
    """Virtual arms for payoffs that are known. Raises :class:`InputError` in a bandit of another kind."""

    planner: RestAndPlay = RestAndPlay()

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Plan, and draw once."""
        bandit = _of_last_switches("known_cycles", bandit)
        self.plans = [self.planner.plan(payoffs, bandit.tired) for payoffs in bandit.payoffs]
        self.draw(self.plans, generator)

    def guarantee(
        self, bandit: RestingBandit, rounds: Int64[np.ndarray, " points"]
    ) -> Float64[np.ndarray, "runs points"] | None:
        """``value / e`` a round."""
        bandit = _of_last_switches("known_cycles", bandit)
        value = np.array([self.planner.plan(payoffs, bandit.tired).value for payoffs in bandit.payoffs])
        return np.asarray(value[:, None] * rounds / math.e)


@dataclass
class LearnedCycles(_VirtualArms):
    """Virtual arms for upper confidence bounds on the payoffs, planned and drawn anew in epochs that grow.

    First ``sweeps`` times every arm is played once, and then for ``a = 1, ..., fresh`` rests ``a`` rounds and plays
    ``tired + 1``, so that each state is met. Then come epochs of ``fresh + tired`` times ``growth^k`` rounds. What is
    paid counts for the state an arm really was in. The abstract states sublinear regret against the planner that knows
    the payoffs; this scheme is a reconstruction, and no rate is proved of it.

    growth: above 1.  sweeps: at least 1.  confidence: a factor on the width of the bounds; 1 is what a guarantee needs.
    Raises :class:`InputError` for values out of range, and in a bandit of another kind.
    """

    growth: Annotated[float, Gt(1)] = 1.5
    sweeps: Annotated[int, Ge(1)] = 1
    confidence: Annotated[float, Gt(0)] = 1.0
    planner: RestAndPlay = RestAndPlay()

    def __post_init__(self) -> None:
        validate_fields(self, "learned_cycles")

    def start(self, bandit: RestingBandit, rounds: int, generator: np.random.Generator) -> None:
        """Lay out the sweeps."""
        bandit = _of_last_switches("learned_cycles", bandit)
        self._seen = Confidence(bandit, rounds, self.confidence)
        self._generator, self._states_tired, self._fresh = generator, bandit.tired, bandit.fresh
        self._script: Int64[np.ndarray, " rounds"] = exploration_script(
            bandit.arms, bandit.fresh, bandit.tired, self.sweeps
        )
        self._next, self._epoch = len(self._script), float(bandit.states)

    def choose(self, number: int, states: States) -> Played:
        """The sweeps, then one arm or none."""
        if number < len(self._script):
            return np.broadcast_to(np.arange(states.shape[1]) == self._script[number], states.shape)
        if number >= self._next:
            self.draw([self.planner.plan(one, self._states_tired) for one in self._seen.bounds()], self._generator)
            self._next, self._epoch = number + math.ceil(self._epoch), self._epoch * self.growth
        return super().choose(number, states)

    def update(self, states: States, played: Played, payoffs: Float64[np.ndarray, "runs arms"]) -> None:
        """Count by state."""
        self._seen.note(states, played, payoffs)


def exploration_script(arms: int, fresh: int, tired: int, sweeps: int) -> Int64[np.ndarray, " rounds"]:
    """Which arm plays in each round, -1 for none, so that every arm is played in every state in each sweep.

    An arm's first play only begins the count: when its turn comes it has rested for long.
    """
    cycle = [True, *(play for rest in range(1, fresh + 1) for play in (*[False] * rest, *[True] * (tired + 1)))]
    sweep = [arm if play else -1 for arm in range(arms) for play in cycle]
    return np.array(sweep * sweeps, dtype=np.int64)


def _of_last_switches(who: str, bandit: RestingBandit) -> LastSwitchBandit:
    if not isinstance(bandit, LastSwitchBandit):
        raise InputError(f"{who}: is for bandits of last switches, not for a {type(bandit).__name__}")
    return bandit
