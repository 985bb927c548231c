"""Discs that go to their goals on a plane, each kept safe by barriers whose parameters are its action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le
from jaxtyping import Bool, Float, Int64

from stratagem.errors import BrokenRunError, InputError
from stratagem.multiagent.barriers import barrier_constraints, box_constraints, nearest
from stratagem.multiagent.game import MarkovGame, State
from stratagem.multiagent.games import configured, named
from stratagem.multiagent.pathfinding import own_chance
from stratagem.multiagent.sketch import Sketch

ZETA = (0.1, 10.0)
"""Range of ``zeta``, the strength of a barrier: the geometric middle is at action 0."""

ETA = (1.0, 3.0)
"""Range of ``eta``, its exponent."""


def parameters(
    action: Float[np.ndarray, "... 2"],
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """``zeta`` and ``eta`` of actions: a sigmoid between the logarithms of their bounds.

    Raises :class:`BrokenRunError` for an action that is not a number.
    """
    if np.isnan(action).any():
        raise BrokenRunError("parameters of barriers: an action is not a number")
    share = 1 / (1 + np.exp(-np.clip(action, -30, 30)))
    zeta, eta = (low * (high / low) ** share[..., place] for place, (low, high) in enumerate((ZETA, ETA)))
    return zeta, eta


def action_of(zeta: float, eta: float) -> Float[np.ndarray, "2"]:
    """The action of these parameters, at most 30 in size. Raises :class:`InputError` outside their ranges."""
    shares = []
    for name, value, (low, high) in (("zeta", zeta, ZETA), ("eta", eta, ETA)):
        if not low <= value <= high:
            raise InputError(f"{name} = {value}: must be in [{low:g}, {high:g}]")
        shares.append(np.log(value / low) / np.log(high / low))
    share = np.clip(np.array(shares), 1e-13, 1 - 1e-13)
    action: np.ndarray = np.clip(np.log(share / (1 - share)), -30, 30)
    return action


@dataclass(frozen=True)
class DiscsGame(MarkovGame):
    """Discs at the corners of a square that change places across it, past obstacles that leave a narrow gap.

    Every turn each agent wants to go straight to its goal at full speed and does the nearest velocity to that which
    its barriers allow (:func:`~stratagem.multiagent.barriers.nearest`): one for every agent and obstacle within
    ``reach``, half the responsibility between agents. Its action sets its own barriers' ``zeta`` and ``eta``
    (:func:`parameters`). Where no velocity is allowed it stops, which is counted and costs. What it sees is relative
    to itself: its way to the goal, its velocity, and for each neighbour where that is, how it moves, how far away it is
    and whether it is an obstacle. All are paid the same, the mean over agents of: progress towards the goal, 1 on
    arrival, -0.01 a turn before, -1 without an allowed velocity, and -10 for a collision, which ends the episode.

    The reward and the ranges of parameters are reconstructions; the paper's own were not available (arXiv 2303.04313).

    agents: 2 to 8; the first four start at corners, others between them.  gap: width between the two obstacles; every
    episode's differs by up to ``jitter``.  radius, obstacle: of agents and obstacles.  safety: kept beside the radii.
    reach: distance at which others are noticed.  speed: at most, along each axis.  time: seconds of a turn.
    max_turns: 1 to 10,000.
    """

    agents: Annotated[int, Ge(2), Le(8)] = 4
    gap: Annotated[float, Gt(0), Le(2)] = 0.8
    jitter: Annotated[float, Ge(0), Le(0.5)] = 0.2
    radius: Annotated[float, Gt(0), Le(0.5)] = 0.15
    obstacle: Annotated[float, Gt(0), Le(1)] = 0.4
    safety: Annotated[float, Ge(0), Le(0.5)] = 0.02
    reach: Annotated[float, Gt(0)] = 1.5
    speed: Annotated[float, Gt(0)] = 1.0
    time: Annotated[float, Gt(0), Le(1)] = 0.05
    max_turns: Annotated[int, Ge(1), Le(10_000)] = 200

    actions: ClassVar[int] = 2
    continuous: ClassVar[bool] = True
    side: ClassVar[float] = 4.0
    obstacles: ClassVar[int] = 2
    arrival: ClassVar[float] = 0.1

    @property
    def name(self) -> str:
        options = ("agents", "gap", "jitter", "radius", "obstacle", "safety", "reach", "speed", "time", "max_turns")
        return named("discs", self, options)

    @property
    def description(self) -> str:
        return "discs change places past obstacles, kept safe by barriers they tune"

    @property
    def neighbourhood(self) -> tuple[int, int, int]:
        """Numbers of an agent's own, neighbours there may be, and numbers of each."""
        return 4, self.agents - 1 + self.obstacles, 7

    @property
    def features(self) -> int:
        own, others, numbers = self.neighbourhood
        return own + others * numbers

    @property
    def state_features(self) -> int:
        return 6 * self.agents + 2 * self.obstacles

    def begin(self, seeds: Int64[np.ndarray, " copies"]) -> State:
        drawn = own_chance(seeds, 0, 1 + 2 * self.agents)
        middle = self.side / 2
        half = (self.gap + self.jitter * (2 * drawn[:, 0] - 1)) / 2 + self.obstacle
        centre = np.full((len(seeds), 2, 2), middle)
        centre[:, 0, 1] -= half
        centre[:, 1, 1] += half
        turn = (np.arange(self.agents) * 2 + 1) * np.pi / 4 + (np.arange(self.agents) // 4) * np.pi / 4
        ring = np.stack([np.cos(turn), np.sin(turn)], -1) * 0.9 * middle
        place = middle + ring + 0.1 * (drawn[:, 1:].reshape(-1, self.agents, 2) - 0.5)
        goal = np.broadcast_to(middle - ring, place.shape).copy()
        flags = {name: np.zeros(place.shape[:2], dtype=bool) for name in ("arrived", "collided")}
        sums = {name: np.zeros(place.shape[:2]) for name in ("travelled", "infeasible")}
        return {
            "place": place,
            "start": place.copy(),
            "goal": goal,
            "velocity": np.zeros_like(place),
            "centre": centre,
            "least": np.full(len(seeds), np.inf),
            **flags,
            **sums,
        }

    def transition(
        self, state: State, action: Float[np.ndarray, "copies agents 2"]
    ) -> tuple[State, Float[np.ndarray, "copies 1"], Bool[np.ndarray, " copies"]]:
        place, goal = state["place"], state["goal"]
        velocity, feasible = self.controlled(state, *parameters(np.asarray(action, dtype=float)))
        moved = place + self.time * velocity
        before, after = (np.linalg.norm(goal - where, axis=-1) for where in (place, moved))
        there = after <= self.arrival
        margin = self.margins({**state, "place": moved})
        collided: np.ndarray = np.any(margin < 0, -1)
        crash = collided.any(1)
        arrived = state["arrived"] | there
        pay = before - after + 1.0 * (there & ~state["arrived"]) - 0.01 * ~there - 1.0 * ~feasible - 10.0 * collided
        changed = {
            "place": moved,
            "velocity": velocity,
            "arrived": arrived,
            "collided": state["collided"] | collided,
            "travelled": state["travelled"] + self.time * np.linalg.norm(velocity, axis=-1) * ~state["arrived"],
            "infeasible": state["infeasible"] + ~feasible,
            "least": np.minimum(state["least"], margin.min((1, 2))),
        }
        return changed, pay.mean(1, keepdims=True), crash | there.all(1)

    def controlled(
        self, state: State, zeta: Float[np.ndarray, "copies agents"], eta: Float[np.ndarray, "copies agents"]
    ) -> tuple[Float[np.ndarray, "copies agents 2"], Bool[np.ndarray, "copies agents"]]:
        """The velocities of all agents, and which of them had any that was allowed; the others stop."""
        away, _, apart, is_agent, near = self._others(state)
        copies, agents, others, _ = away.shape
        rows = copies * agents
        wanted = state["goal"] - state["place"]
        # No faster than what reaches the goal within this turn.
        distance = np.linalg.norm(wanted, axis=-1, keepdims=True)
        wanted = wanted / np.maximum(distance, 1e-12) * np.minimum(self.speed, distance / self.time)
        share = np.where(is_agent, 0.5, 1.0)
        flat = (away.reshape(rows, others, 2), apart[None], share[None], near.reshape(rows, others))
        barriers = barrier_constraints(*flat, zeta.reshape(-1), eta.reshape(-1), 2 * self.radius)
        box = box_constraints(rows, self.speed)
        normal, bound = (np.concatenate(both, 1) for both in zip(barriers, box, strict=True))
        found = nearest(wanted.reshape(rows, 2), normal, bound)
        return found.velocity.reshape(copies, agents, 2), found.feasible.reshape(copies, agents)

    def margins(self, state: State) -> Float[np.ndarray, "copies agents others"]:
        """How far each agent is from touching each other agent and obstacle; below 0 they overlap."""
        away, _, apart, _, _ = self._others(state)
        gaps: np.ndarray = np.linalg.norm(away, axis=-1) - (apart - self.safety)
        return gaps

    def _others(self, state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of every agent's others, agents before obstacles: ``p_i - p_j``, relative velocity, least distance of centres
        [others], whether it is an agent [others], and whether it is in reach."""
        place, velocity = state["place"], state["velocity"]
        copies, agents, _ = place.shape
        whom = np.arange(agents - 1)[None] + (np.arange(agents - 1)[None] >= np.arange(agents)[:, None])
        away = np.concatenate([place[:, :, None] - place[:, whom], place[:, :, None] - state["centre"][:, None]], 2)
        still = np.broadcast_to(-velocity[:, :, None], (copies, agents, self.obstacles, 2))
        moving = np.concatenate([velocity[:, whom] - velocity[:, :, None], still], 2)
        is_agent = np.arange(agents - 1 + self.obstacles) < agents - 1
        apart = np.where(is_agent, 2 * self.radius, self.radius + self.obstacle) + self.safety
        surface = np.linalg.norm(away, axis=-1) - np.where(is_agent, 0.0, self.obstacle)
        return away, moving, apart, is_agent, surface <= self.reach

    def observe(self, state: State) -> Float[np.ndarray, "copies agents features"]:
        away, moving, _, is_agent, near = self._others(state)
        distance = np.linalg.norm(away, axis=-1, keepdims=True)
        kind = np.broadcast_to(~is_agent[:, None], distance.shape)
        told = np.concatenate([np.ones_like(distance), -away, moving, distance, kind], -1) * near[..., None]
        own = np.concatenate([state["goal"] - state["place"], state["velocity"]], -1)
        return np.concatenate([own, told.reshape(*own.shape[:2], -1)], -1)

    def whole(self, state: State) -> Float[np.ndarray, "copies state_features"]:
        named_parts = (state[name].reshape(len(state["seed"]), -1) for name in ("place", "goal", "velocity", "centre"))
        return np.concatenate(list(named_parts), 1)

    def sketch(self, state: State) -> Sketch:
        discs = np.concatenate([state["centre"][0], np.full((self.obstacles, 1), self.obstacle)], 1)
        return Sketch(self.side, self.side, state["place"][0], state["goal"][0], self.radius, discs=discs)


def play(game: DiscsGame, act: Any, seeds: Int64[np.ndarray, " episodes"]) -> Mapping[str, float]:
    """Means over the episodes with these seeds, played side by side until each is over.

    act: actions [copies, agents, 2] given a state.  ``success``: all agents arrived and none collided.  ``efficiency``:
    over agents that arrived, the straight way over the way travelled.  ``least``: the smallest margin.
    ``infeasible``: turns of agents without an allowed velocity, in an episode.  ``turns``: until all are there.
    """
    state = {"seed": seeds, "turn": np.zeros_like(seeds), **game.begin(seeds)}
    over, earned = np.zeros(len(seeds), dtype=bool), np.zeros(len(seeds))
    for _ in range(game.max_turns):
        changed, reward, ended = game.transition(state, act(state))
        earned += np.where(over, 0.0, reward[:, 0])
        after = {**state, **changed, "turn": state["turn"] + 1}
        state = {
            name: np.where(over.reshape(-1, *[1] * (rows.ndim - 1)), state[name], rows) for name, rows in after.items()
        }
        over |= ended
        if over.all():
            break
    straight = np.linalg.norm(state["goal"] - state["start"], axis=-1) - game.arrival
    arrived = state["arrived"]
    ratio = np.minimum(straight / np.maximum(state["travelled"], 1e-9), 1.0)[arrived]
    return {
        "success": float((arrived.all(1) & ~state["collided"].any(1)).mean()),
        "return": float(earned.mean()),
        "efficiency": float(ratio.mean()) if arrived.any() else 0.0,
        "least": float(state["least"].min()),
        "infeasible": float(state["infeasible"].sum(1).mean()),
        "turns": float(state["turn"].mean()),
    }


def fixed(action: Float[np.ndarray, "#agents 2"]) -> Any:
    """Actions that never change, for :func:`play`."""
    return lambda state: np.broadcast_to(action, (*state["place"].shape[:2], 2)).astype(np.float32)


def from_spec(argument: str | None, options: Mapping[str, Any]) -> DiscsGame:
    """The task ``discs[:agents=4,gap=0.8,...]``. Raises :class:`InputError` for a wrong option."""
    return configured("discs", DiscsGame, argument, options)
