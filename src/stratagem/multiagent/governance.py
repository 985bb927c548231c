"""Players whose body acts by default and who think when it feels uneasy, and what it costs the body to be overruled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Float64
from pydantic import InstanceOf

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.multiagent.repeated import Actions, Move, Moves, Phase, Player, Schedule, TitForTat, play_repeated
from stratagem.multiagent.reservoir import Bodies, Reservoir, State
from stratagem.seeding import numpy_generator
from stratagem.validation import validate_fields

WARM_UP, AT_REST = 500, 200
"""Steps under cooperation before the first round, and how many of them, the last, tell what is usual."""


@dataclass(frozen=True)
class Sentinel:
    """Discomfort of a body, and how much of the action is left to it: ``alpha``.

    ``D = state ||x - x_mean|| / sqrt(size) + action |a_body - a_mean| + conflict |a_body - a_thought|``
    ``alpha' = clip(alpha + recovery (default - alpha) - gain max(0, D - threshold), least, 1)``

    Held at one D, alpha comes to ``default - gain / recovery (D - threshold)``, within its bounds. Means are moving
    averages of rate ``forgetting``. Raises :class:`InputError` for values out of range.
    """

    state: Annotated[float, Ge(0)] = 0.3
    action: Annotated[float, Ge(0)] = 0.3
    conflict: Annotated[float, Ge(0)] = 0.4
    forgetting: Annotated[float, Ge(0), Le(1)] = 0.02
    threshold: Annotated[float, Ge(0)] = 0.1
    gain: Annotated[float, Ge(0)] = 0.5
    recovery: Annotated[float, Gt(0), Le(1)] = 0.05
    default: Annotated[float, Ge(0), Le(1)] = 0.85
    least: Annotated[float, Ge(0), Le(1)] = 0.05

    def __post_init__(self) -> None:
        validate_fields(self, "sentinel")
        if self.least > self.default:
            raise InputError(f"sentinel: least={self.least} is not allowed; at most default={self.default}")

    def discomfort(self, state: State, usual: State, body: Actions, custom: Actions, thought: Actions) -> Actions:
        """D, with ``usual`` and ``custom`` the means of states and of actions of the body."""
        strange = np.linalg.norm(state - usual, axis=-1) / np.sqrt(state.shape[-1])
        return np.asarray(
            self.state * strange + self.action * np.abs(body - custom) + self.conflict * np.abs(body - thought)
        )

    def governed(self, alpha: Actions, discomfort: Actions) -> Actions:
        """The next alpha."""
        back = self.recovery * (self.default - alpha)
        alarm = self.gain * np.maximum(0, discomfort - self.threshold)
        return np.clip(alpha + back - alarm, self.least, 1)


@paper(
    "2602.20846",
    title="Body-Reservoir Governance in Repeated Games: Embodied Decision-Making, Dynamic Sentinel Adaptation, and "
    "Complexity-Regularized Optimization",
    family="games",
    roles=("policy", "memory", "regularizer", "metric", "environment"),
    year=2026,
    name="brg",
)
@dataclass(frozen=True)
class BodyGovernance(Player):
    """An echo state network acts by habit, ``a = alpha a_body + (1 - alpha) a_thought``; discomfort hands over control.

    The body hears what was done, ``[a, b]``, not what it proposed. The new alpha counts in the round of its
    discomfort, whose means are moved after it. Against a schedule, what the other did before the first round is its
    first action, as in the authors' code.

    reservoir: how bodies come about; every game has one of its own.  sentinel: what moves alpha, from its default.
    alpha: a fixed one instead; 0 is ``thought`` alone, 1 the body alone.
    thought: any player; tit for tat by default.

    Raises :class:`InputError` for an alpha outside [0, 1].
    """

    reservoir: Reservoir = field(default_factory=Reservoir)
    sentinel: Sentinel = field(default_factory=Sentinel)
    alpha: Annotated[float, Ge(0), Le(1)] | None = None
    thought: InstanceOf[Player] = field(default_factory=TitForTat)

    def __post_init__(self) -> None:
        validate_fields(self, "brg")

    def moves(self, first: Actions, seed: int) -> Moves:
        """Its moves, with ``alpha``, ``discomfort``, ``body`` (what that proposed) and ``state`` as figures."""
        bodies, rng = self.reservoir.grow(len(first), seed), numpy_generator(seed, "brg", "noise")
        ones = np.ones_like(first)
        rest = bodies.wander(np.zeros(bodies.bias.shape), bodies.driven(ones, ones), WARM_UP, rng)[-AT_REST:]
        state, usual, custom = rest[-1], rest.mean(0), bodies.act(rest).mean(0)
        thinking = self.thought.moves(first, seed)
        thought = next(thinking).actions
        alpha = np.full_like(first, self.sentinel.default if self.alpha is None else self.alpha)
        while True:
            body = bodies.act(state)
            discomfort = self.sentinel.discomfort(state, usual, body, custom, thought)
            usual = usual + self.sentinel.forgetting * (state - usual)
            custom = custom + self.sentinel.forgetting * (body - custom)
            if self.alpha is None:
                alpha = self.sentinel.governed(alpha, discomfort)
            mine = alpha * body + (1 - alpha) * thought
            figures = {"alpha": alpha, "discomfort": discomfort, "body": body, "state": state}
            theirs = yield Move(mine, figures)
            state = bodies.step(state, bodies.driven(mine, theirs), rng.standard_normal(state.shape))
            thought = thinking.send(theirs).actions


# ---- what it costs --------------------------------------------------------------------------------------------------


def neighbour_divergence(
    sample: Float64[np.ndarray, "n size"], reference: Float64[np.ndarray, "m size"], nearest: int = 5
) -> float:
    """``KL(p || q)`` from a sample of each, by distances to the k-th nearest neighbour; never below 0.

    ``size / n sum_i log(nu_k(i) / rho_k(i)) + log(m / (n - 1))``, with ``rho`` the distance of a point of the sample to
    others of it, and ``nu`` to those of the reference. Distances of 0 count as 1e-300.

    Raises :class:`InputError` for samples of no more than ``nearest`` points, or of different sizes.
    """
    from scipy.spatial import cKDTree

    (n, size), (m, other) = sample.shape, reference.shape
    if min(n, m) <= nearest or size != other:
        raise InputError(
            f"divergence: samples of {n} and {m} points of size {size} and {other}; "
            f"needs more than {nearest} points each, of one size"
        )
    own = cKDTree(sample).query(sample, [nearest + 1])[0][:, 0]
    across = cKDTree(reference).query(sample, [nearest])[0][:, 0]
    ratio = np.log(np.maximum(across, 1e-300)) - np.log(np.maximum(own, 1e-300))
    return max(0.0, float(size * ratio.mean() + np.log(m / (n - 1))))


def complexity(
    player: BodyGovernance, opponent: Schedule, runs: int, seed: int, *, burn_in: int = 100, nearest: int = 5
) -> Float64[np.ndarray, " runs"]:
    """What it costs a body to be overruled: ``KL(p(x) || p_habit(x))`` of its states, by run.

    p_habit is of states of the body alone with one who always cooperates, for as many rounds. The first ``burn_in``
    rounds of both are left out. Weighed with payoff, this is the paper's free energy: ``payoff - weight * complexity``.
    Distances in many dimensions estimate small divergences well and large ones too low.
    """
    habit = BodyGovernance(player.reservoir, player.sentinel, alpha=1.0)
    cooperation = Schedule((Phase(opponent.rounds),))
    visited, usual = (
        play_repeated(who, other, runs, seed).figures["state"][burn_in:]
        for who, other in ((player, opponent), (habit, cooperation))
    )
    return np.array([neighbour_divergence(visited[:, run], usual[:, run], nearest) for run in range(runs)])


def smoothing_bound(bodies: Bodies, defects: float) -> Float64[np.ndarray, " bodies"]:
    """Variance of the actions of a body alone against one who cooperates but for independent slips, at most.

    ``(1/4)^2 ||w||^2 ||V_theirs||^2 e (1 - e) / (1 - ||J||)^2`` with J the Jacobian where the body settles under
    cooperation; infinite where ``||J|| >= 1``. It is linear in the slips and knows no noise of the body.
    """
    norms = np.linalg.norm(bodies.jacobian(bodies.settled(1.0)), 2, axis=(-2, -1))
    heard = (bodies.inputs[..., 1] ** 2).sum(-1) * (bodies.readout**2).sum(-1)
    with np.errstate(divide="ignore"):
        bound = heard / 16 * defects * (1 - defects) / np.maximum(1 - norms, 0) ** 2
    return np.asarray(bound)
